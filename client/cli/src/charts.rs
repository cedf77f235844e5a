//! Charts as SVG text: the one place that draws, for reports, simulations and whoever else has figures to show.
//!
//! The colours are of a middle lightness and the background is clear, so that a chart can be read on a light page and on a
//! dark one. A chart never stands alone: the numbers behind it are in a table or a CSV beside it.

use std::{fmt::Display, ops::Range};

use plotters::{
    coord::{Shift, cartesian::Cartesian2d, types::RangedCoordf64},
    prelude::{
        ChartBuilder, ChartContext, Circle, Color, DrawingArea, IntoDrawingArea, IntoFont, LineSeries, RGBColor,
        Rectangle, SVGBackend, Text, TextStyle,
    },
    style::RGBAColor,
};

/// Why a chart could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("a chart cannot be drawn: {0}")]
pub(crate) struct ChartError(String);

fn failed(error: impl Display) -> ChartError {
    ChartError(error.to_string())
}

/// What the axes of a chart are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axes<'a> {
    /// What is to the right, with its unit.
    pub(crate) x: &'a str,
    /// What is up, with its unit. This axis starts at 0.
    pub(crate) y: &'a str,
    /// Whether the axis to the right starts at 0 as well.
    pub(crate) x_from_zero: bool,
}

/// A line.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    /// What it shows.
    pub(crate) name: String,
    /// Its points, from left to right. Those that are no finite numbers are left out.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A row of a timeline: as many lanes as things happened in it at once.
#[derive(Debug, Clone)]
pub(crate) struct TimelineRow<'a> {
    /// Whose row it is.
    pub(crate) name: String,
    /// The bars of each lane.
    pub(crate) lanes: Vec<&'a [Bar]>,
}

/// A bar of a timeline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bar {
    /// From when, on the axis.
    pub(crate) from: f64,
    /// Until when.
    pub(crate) until: f64,
    /// Which of the colours of [`SHADES`].
    pub(crate) shade: usize,
}

const WIDTH_PX: u32 = 940;
const HEIGHT_PX: u32 = 320;
const LEGEND_PX: u32 = 200;
const LABELS_PX: u32 = 64;
const LANE_PX: u32 = 12;
/// Between two rows of a timeline, in lanes.
const GAP: f64 = 0.5;
/// Bars are never thinner.
const BAR_PX_MIN: f64 = 0.75;

const INK: RGBColor = RGBColor(128, 128, 128);
/// Told apart also by those who cannot tell red from green (after Okabe and Ito).
pub(crate) const SHADES: [RGBColor; 7] = [
    RGBColor(0, 129, 190),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(205, 145, 0),
    RGBColor(86, 160, 210),
    RGBColor(140, 120, 100),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Plot<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Draws lines, with a legend beside them.
pub(crate) fn lines(axes: &Axes<'_>, series: &[Series]) -> Result<String, ChartError> {
    let series: Vec<Series> = series.iter().map(finite).collect();
    let points = || series.iter().flat_map(|series| series.points.iter().copied());
    let x = range(points().map(|(x, _)| x), axes.x_from_zero);
    let y = range(points().map(|(_, y)| y), true);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH_PX, HEIGHT_PX)).into_drawing_area();
        let (area, legend) = root.split_horizontally(WIDTH_PX - LEGEND_PX);
        let mut plot = plot(&area, x, y, LABELS_PX)?;
        mesh(&mut plot, axes.x, axes.y, true)?;
        for (number, series) in series.iter().enumerate() {
            let shade = shade(number);
            plot.draw_series(LineSeries::new(series.points.iter().copied(), shade.stroke_width(2))).map_err(failed)?;
            // Lines of few points are choices, not a course: each point is one.
            if series.points.len() <= 12 {
                let dots = series.points.iter().map(|&point| Circle::new(point, 3, shade.filled()));
                plot.draw_series(dots).map_err(failed)?;
            }
        }
        draw_legend(&legend, series.iter().map(|series| series.name.as_str()))?;
        root.present().map_err(failed)?;
    }
    Ok(svg)
}

/// Draws bars over time, row by row from the top; `legend` names the shades.
pub(crate) fn timeline(
    x_label: &str,
    x: Range<f64>,
    rows: &[TimelineRow<'_>],
    legend: &[&str],
) -> Result<String, ChartError> {
    let x = range([x.start, x.end].into_iter(), false);
    let lanes: usize = rows.iter().map(|row| row.lanes.len()).sum();
    let height = lanes as f64 + GAP * rows.len() as f64;
    let height_px = (height * f64::from(LANE_PX)) as u32 + 60;
    let labels_px = 7 * rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0) as u32 + 16;
    let x_per_px = (x.end - x.start) / f64::from(WIDTH_PX - LEGEND_PX - labels_px.min(WIDTH_PX / 2));
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH_PX, height_px)).into_drawing_area();
        let (area, beside) = root.split_horizontally(WIDTH_PX - LEGEND_PX);
        let mut plot = plot(&area, x, 0.0..height.max(1.0), labels_px.min(WIDTH_PX / 2))?;
        mesh(&mut plot, x_label, "", false)?;
        let mut top = height;
        for row in rows {
            for (number, lane) in row.lanes.iter().enumerate() {
                let y = top - number as f64;
                let bars = lane.iter().map(|bar| {
                    let until = bar.until.max(bar.from + x_per_px * BAR_PX_MIN);
                    Rectangle::new([(bar.from, y - 0.85), (until, y - 0.1)], shade(bar.shade).filled())
                });
                plot.draw_series(bars).map_err(failed)?;
            }
            let (px, py) = plot.backend_coord(&(plot.x_range().start, top));
            let at = (px - labels_px as i32 + 4, py);
            root.draw(&Text::new(row.name.clone(), at, ink(11))).map_err(failed)?;
            top -= row.lanes.len() as f64 + GAP;
        }
        draw_legend(&beside, legend.iter().copied())?;
        root.present().map_err(failed)?;
    }
    Ok(svg)
}

/// A colour; after the last the first again, paler.
fn shade(number: usize) -> RGBAColor {
    let paler = [1.0, 0.55, 0.3][(number / SHADES.len()).min(2)];
    SHADES[number % SHADES.len()].mix(paler)
}

fn ink(px: u32) -> TextStyle<'static> {
    ("sans-serif", px).into_font().color(&INK)
}

fn plot<'a, 'b>(area: &'a Area<'b>, x: Range<f64>, y: Range<f64>, labels_px: u32) -> Result<Plot<'a, 'b>, ChartError> {
    let mut builder = ChartBuilder::on(area);
    builder.margin(8).x_label_area_size(40).y_label_area_size(labels_px);
    builder.build_cartesian_2d(x, y).map_err(failed)
}

fn mesh(plot: &mut Plot<'_, '_>, x: &str, y: &str, with_y: bool) -> Result<(), ChartError> {
    let mut mesh = plot.configure_mesh();
    mesh.axis_style(INK).label_style(ink(12)).axis_desc_style(ink(12)).x_desc(x).y_desc(y);
    mesh.bold_line_style(INK.mix(0.25)).light_line_style(INK.mix(0.0)).x_labels(8).y_labels(6);
    let number = |number: &f64| short(*number);
    mesh.x_label_formatter(&number).y_label_formatter(&number);
    if !with_y {
        mesh.disable_y_mesh().y_labels(0);
    }
    mesh.draw().map_err(failed)
}

fn draw_legend<'a>(area: &Area<'_>, names: impl Iterator<Item = &'a str>) -> Result<(), ChartError> {
    for (number, name) in names.enumerate() {
        let y = 14 + 16 * number as i32;
        area.draw(&Rectangle::new([(8, y), (18, y + 10)], shade(number).filled())).map_err(failed)?;
        area.draw(&Text::new(name.to_owned(), (24, y), ink(12))).map_err(failed)?;
    }
    Ok(())
}

fn finite(series: &Series) -> Series {
    let points = series.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite());
    Series { name: series.name.clone(), points: points.collect() }
}

/// A range that holds all of `values` and is not empty.
fn range(values: impl Iterator<Item = f64>, from_zero: bool) -> Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    let low = if from_zero { low.min(0.0) } else { low };
    let span = high - low;
    if !span.is_finite() {
        0.0..1.0
    } else if span > 0.0 {
        low..low + span * if from_zero { 1.05 } else { 1.0 }
    } else {
        low..low + 1.0
    }
}

/// A number at an axis: `250`, `1.5k`, `3M`, `0.25`.
fn short(number: f64) -> String {
    let (number, unit) = match number.abs() {
        size if size >= 1e9 => (number / 1e9, "G"),
        size if size >= 1e6 => (number / 1e6, "M"),
        size if size >= 1e4 => (number / 1e3, "k"),
        _ => (number, ""),
    };
    let digits = if number.abs() < 10.0 { 3 } else { 1 };
    let text = format!("{number:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn lines_are_drawn_whatever_the_numbers() {
        let series = |points: &[(f64, f64)]| Series { name: "a & b".to_owned(), points: points.to_vec() };
        let axes = Axes { x: "time, s", y: "tasks", x_from_zero: true };
        for points in [&[][..], &[(1.0, 0.0)], &[(0.0, f64::NAN), (5.0, f64::INFINITY)], &[(0.0, 1.0), (1e9, 2e7)]] {
            let svg = lines(&axes, &[series(points)]).unwrap();
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
            assert!(svg.contains("a &amp; b") && !svg.contains("NaN"), "{svg}");
        }
    }

    #[test]
    fn a_timeline_has_a_bar_for_each_and_the_name_of_each_row() {
        let bars = [Bar { from: 0.0, until: 2.0, shade: 0 }, Bar { from: 2.0, until: 2.0, shade: 1 }];
        let rows = [
            TimelineRow { name: "wrk_1".to_owned(), lanes: vec![&bars, &bars[..1]] },
            TimelineRow { name: "wrk_2".to_owned(), lanes: Vec::new() },
        ];
        let svg = timeline("seconds", 0.0..10.0, &rows, &["finished", "lost"]).unwrap();
        assert!(svg.contains("wrk_1") && svg.contains("wrk_2") && svg.contains("lost"));
        // Three bars and two squares of the legend.
        assert_eq!(svg.matches("<rect").count(), 5, "{svg}");
        assert!(timeline("seconds", 0.0..0.0, &[], &[]).is_ok());
    }

    #[test]
    fn numbers_at_an_axis_are_short() {
        let shown = [0.0, 0.25, 7.5, 250.0, 9_999.0, 15_000.0, 3e6].map(short);
        assert_eq!(shown, ["0", "0.25", "7.5", "250", "9999", "15k", "3M"]);
    }
}
