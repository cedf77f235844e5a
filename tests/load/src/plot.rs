//! Plots as SVG that takes its colours from the page it is on.

use plotters::{
    coord::{
        combinators::IntoLogRange,
        ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
    },
    prelude::*,
};

use crate::error::LoadError;

/// Size of a plot, in the units of its view box.
const SIZE: (u32, u32) = (760, 300);
/// Colours of lines that can be told apart on white and on black, and by people who see fewer of them.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(128, 128, 128),
    RGBColor(148, 103, 189),
];

/// Lines with more points have no dots on them.
const DOTS_MAX: usize = 40;

/// A line of a plot.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    /// What the legend calls it: one of our own words, which needs no escaping.
    pub(crate) name: String,
    /// Its points, from left to right.
    pub(crate) points: Vec<(f64, f64)>,
}

/// What a plot shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plot {
    /// What stands below it.
    pub(crate) x: String,
    /// What stands beside it.
    pub(crate) y: String,
    /// Whether equal distances to the right are equal ratios.
    pub(crate) log_x: bool,
    /// The same, upwards.
    pub(crate) log_y: bool,
    /// The lines.
    pub(crate) lines: Vec<Line>,
}

impl Plot {
    /// Draws it. Points that a logarithm cannot show are left out; without any point there is nothing.
    pub(crate) fn svg(&self) -> Result<String, LoadError> {
        let shown = |(x, y): &(f64, f64)| {
            x.is_finite() && y.is_finite() && (*x > 0.0 || !self.log_x) && (*y > 0.0 || !self.log_y)
        };
        let lines: Vec<Line> = self
            .lines
            .iter()
            .map(|line| Line { name: line.name.clone(), points: line.points.iter().copied().filter(shown).collect() })
            .filter(|line| !line.points.is_empty())
            .collect();
        if lines.is_empty() {
            return Ok(String::new());
        }
        let of = |pick: fn(&(f64, f64)) -> f64, log: bool| {
            let values = lines.iter().flat_map(|line| &line.points).map(pick);
            let (least, most) =
                values.fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(value), most.max(value)));
            match log {
                true => (least / 1.2, most * 1.2),
                false => (least.min(0.0), if most > 0.0 { most * 1.05 } else { 1.0 }),
            }
        };
        let ((left, right), (bottom, top)) = (of(|point| point.0, self.log_x), of(|point| point.1, self.log_y));
        let mut svg = String::new();
        let drawn = match (self.log_x, self.log_y) {
            (false, false) => self.draw(&mut svg, &lines, left..right, bottom..top),
            (true, false) => self.draw(&mut svg, &lines, (left..right).log_scale(), bottom..top),
            (false, true) => self.draw(&mut svg, &lines, left..right, (bottom..top).log_scale()),
            (true, true) => self.draw(&mut svg, &lines, (left..right).log_scale(), (bottom..top).log_scale()),
        };
        drawn
            .map_err(|error| LoadError::Plot { what: format!("{} by {}", self.y, self.x), wrong: error.to_string() })?;
        // The page's own colour instead of black, and its own size instead of a fixed one.
        let size = format!("width=\"{}\" height=\"{}\" ", SIZE.0, SIZE.1);
        let svg = svg.replacen(&size, "role=\"img\" ", 1).replace("#000000", "currentColor");
        Ok(svg + &legend(&lines))
    }

    fn draw<X, Y>(&self, svg: &mut String, lines: &[Line], x: X, y: Y) -> Result<(), Box<dyn std::error::Error>>
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
    {
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let mut chart =
            ChartBuilder::on(&area).margin(8).x_label_area_size(38).y_label_area_size(64).build_cartesian_2d(x, y)?;
        let faint = BLACK.mix(0.12);
        chart
            .configure_mesh()
            .x_desc(&self.x)
            .y_desc(&self.y)
            .bold_line_style(faint)
            .light_line_style(TRANSPARENT)
            .x_label_formatter(&|value| short(*value))
            .y_label_formatter(&|value| short(*value))
            .draw()?;
        for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
            let style = colour.stroke_width(2);
            let dots = if line.points.len() > DOTS_MAX { 0 } else { 3 };
            chart.draw_series(LineSeries::new(line.points.iter().copied(), style).point_size(dots))?;
        }
        area.present()?;
        drop(chart);
        Ok(())
    }
}

/// What the lines are, as a line of the page: inside the plot it would lie on them.
fn legend(lines: &[Line]) -> String {
    if lines.len() < 2 {
        return String::new();
    }
    let entry = |(line, RGBColor(red, green, blue)): (&Line, &RGBColor)| {
        format!(" <span style=\"color:rgb({red},{green},{blue})\">━</span> {}", line.name)
    };
    format!("<p>{}</p>\n", lines.iter().zip(COLOURS.iter().cycle()).map(entry).collect::<String>())
}

/// A value on an axis: `1.5k`, `20M`, `0.25`.
fn short(value: f64) -> String {
    let trimmed = |value: f64| {
        let text = format!("{value:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match value.abs() {
        size if size >= 1e6 => trimmed(value / 1e6) + "M",
        size if size >= 1e3 => trimmed(value / 1e3) + "k",
        size if size >= 0.01 || size == 0.0 => trimmed(value),
        _ => format!("{value:.0e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_take_the_colours_of_their_page() {
        let line = |name: &str| Line { name: name.into(), points: vec![(1.0, 0.0), (10.0, 5.0), (100.0, 50.0)] };
        for (log_x, log_y) in [(false, false), (true, false), (false, true), (true, true)] {
            let plot = Plot { x: "tasks".into(), y: "s".into(), log_x, log_y, lines: vec![line("a"), line("b")] };
            let svg = plot.svg().expect("drawn");
            assert!(svg.contains("<polyline") && svg.contains("currentColor") && !svg.contains("#000000"));
            assert!(svg.contains("</span> a <span") && svg.contains("</span> b</p>"), "{svg}");
            assert!(svg.contains("viewBox") && !svg.contains("height=\"300\" viewBox"), "{}", &svg[..200]);
        }
        let empty = Plot {
            x: "x".into(),
            y: "y".into(),
            log_x: true,
            log_y: true,
            lines: vec![Line { name: "none".into(), points: vec![(0.0, 1.0)] }],
        };
        assert_eq!(empty.svg().expect("nothing to draw"), "");
    }

    #[test]
    fn axes_are_short() {
        assert_eq!([0.0, 0.25, 12.0, 1_500.0, 2e7, 0.001].map(short), ["0", "0.25", "12", "1.5k", "20M", "1e-3"]);
    }
}
