//! Bars over time, row by row.

use std::ops::Range;

use plotters::{
    element::{Rectangle, Text},
    style::Color,
};

use crate::{
    ChartError, lines,
    theme::{self, Area, Failure, LEGEND_PX, WIDTH_PX},
};

const LANE_PX: u32 = 12;
/// Between two rows, in lanes.
const GAP: f64 = 0.5;
/// Bars are never thinner.
const BAR_PX_MIN: f64 = 0.75;

/// Bars over time, row by row from the top, with a legend beside them.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline<'a> {
    /// What is to the right, with its unit.
    pub x_label: &'a str,
    /// What of it is drawn.
    pub x: Range<f64>,
    /// The rows.
    pub rows: Vec<TimelineRow<'a>>,
    /// The names of the shades.
    pub legend: &'a [&'a str],
}

/// A row of a timeline: as many lanes as things happened in it at once.
#[derive(Debug, Clone, PartialEq)]
pub struct TimelineRow<'a> {
    /// Whose row it is.
    pub name: String,
    /// The bars of each lane.
    pub lanes: Vec<&'a [Bar]>,
}

/// A bar of a timeline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bar {
    /// From when, on the axis.
    pub from: f64,
    /// Until when.
    pub until: f64,
    /// Its colour: the place of its name in [`Timeline::legend`].
    pub shade: usize,
}

impl Timeline<'_> {
    /// Draws it.
    pub fn svg(&self) -> Result<String, ChartError> {
        let height_px = (self.height() * f64::from(LANE_PX)) as u32 + 60;
        let chart = || format!("over {}", self.x_label);
        theme::draw(chart, height_px, self.legend.iter().copied(), |area| self.draw(area))
    }

    /// In lanes.
    fn height(&self) -> f64 {
        let lanes: usize = self.rows.iter().map(|row| row.lanes.len()).sum();
        lanes as f64 + GAP * self.rows.len() as f64
    }

    fn draw(&self, area: &Area<'_>) -> Result<(), Failure> {
        let x = lines::spread(self.x.start, self.x.end, 1.0);
        let height = self.height();
        let letters = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        let labels_px = (7 * letters as u32 + 16).min(WIDTH_PX / 2);
        let x_per_px = (x.end - x.start) / f64::from(WIDTH_PX - LEGEND_PX - labels_px);
        let mut plot = theme::plot(area, (x.clone(), 0.0..height.max(1.0)), labels_px)?;
        theme::mesh(&mut plot, self.x_label, None)?;
        let mut top = height;
        for row in &self.rows {
            for (number, lane) in row.lanes.iter().enumerate() {
                let y = top - number as f64;
                let bars = lane.iter().map(|bar| {
                    let until = bar.until.max(bar.from + x_per_px * BAR_PX_MIN);
                    Rectangle::new([(bar.from, y - 0.85), (until, y - 0.1)], theme::shade(bar.shade).filled())
                });
                plot.draw_series(bars)?;
            }
            let (px, py) = plot.backend_coord(&(x.start, top));
            area.draw(&Text::new(row.name.clone(), (px - labels_px as i32 + 4, py), theme::ink(11)))?;
            top -= row.lanes.len() as f64 + GAP;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_has_a_bar_for_each_and_the_name_of_each_row() {
        let bars = [Bar { from: 0.0, until: 2.0, shade: 0 }, Bar { from: 2.0, until: 2.0, shade: 1 }];
        let rows = vec![
            TimelineRow { name: "wrk_1".to_owned(), lanes: vec![&bars, &bars[..1]] },
            TimelineRow { name: "wrk_2".to_owned(), lanes: Vec::new() },
        ];
        let timeline = Timeline { x_label: "seconds", x: 0.0..10.0, rows, legend: &["finished", "lost"] };
        let svg = timeline.svg().unwrap();
        assert!(svg.contains("wrk_1") && svg.contains("wrk_2") && svg.contains("lost"));
        assert!(svg.contains("currentColor") && !svg.contains("#000000"), "{svg}");
        // Three bars and two squares of the legend.
        assert_eq!(svg.matches("<rect").count(), 5, "{svg}");
        let empty = Timeline { x: 0.0..0.0, rows: Vec::new(), legend: &[], ..timeline };
        assert!(empty.svg().is_ok());
    }
}
