//! Charts as SVG text: the one place that draws, for reports, simulations and whoever else has figures to show.
//!
//! A chart goes into a page as it is. What is ink in it (texts, axes, the mesh) has the page's own `currentColor`, the
//! colours of what is shown are told apart on light pages and on dark ones, and its width is that of the element it is in.
//! [`as_file`] makes a file of its own of it. A chart never stands alone: the numbers behind it are in a table or a CSV
//! beside it.
//!
//! What the charts show and mean is their users' affair: nothing here knows of jobs or grids.

mod lines;
mod theme;
mod timeline;

pub use lines::{Axis, Lines, Scale, Series};
pub use timeline::{Bar, Timeline, TimelineRow};

/// Why a chart could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the chart {chart} cannot be drawn")]
pub struct ChartError {
    /// Which, by what its axes are.
    pub chart: String,
    /// What the drawing library says.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A chart as a file of its own, which has no page to take its colours from: they are those that its viewer prefers. Its title is
/// what its axes are.
pub fn as_file(svg: &str) -> String {
    const STYLE: &str = "<style>:root{color-scheme:light dark;color:CanvasText}</style>";
    match svg.split_once('>') {
        Some((root, rest)) => {
            let named = root.split_once("aria-label=\"").and_then(|(_, name)| name.split_once('"'));
            let title = named.map(|(name, _)| format!("<title>{name}</title>")).unwrap_or_default();
            format!("{root}>\n{title}{STYLE}{rest}")
        }
        None => svg.to_owned(),
    }
}
