//! What all charts have in common: colours, sizes, how a number is written, and the legend.

use std::error::Error;

use plotters::{
    backend::SVGBackend,
    chart::{ChartBuilder, ChartContext},
    coord::{
        Shift,
        cartesian::Cartesian2d,
        ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
    },
    drawing::{DrawingArea, IntoDrawingArea},
    element::{Rectangle, Text},
    style::{BLACK, Color, IntoFont, RGBAColor, RGBColor, ShapeStyle, TRANSPARENT, TextStyle},
};

use crate::ChartError;

pub(crate) const WIDTH_PX: u32 = 940;
pub(crate) const LEGEND_PX: u32 = 200;
/// Between two names of a legend.
const LEGEND_LINE_PX: u32 = 16;

/// What [`draw`] makes the page's own colour; nothing else is drawn in it.
pub(crate) const INK: RGBColor = BLACK;
/// Told apart also by those who cannot tell red from green (after Okabe and Ito), and seen on white as well as on near-black.
const PALETTE: [RGBColor; 8] = [
    RGBColor(0, 129, 190),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(195, 135, 0),
    RGBColor(75, 150, 205),
    RGBColor(140, 120, 100),
    RGBColor(148, 103, 189),
];

pub(crate) type Failure = Box<dyn Error + Send + Sync>;
pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(crate) type Plot<'a, 'b, X, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>;

/// Draws a chart of this height with a legend beside it: `body` has the area to the left.
pub(crate) fn draw<'n>(
    chart: impl Fn() -> String,
    height_px: u32,
    legend: impl ExactSizeIterator<Item = &'n str>,
    body: impl FnOnce(&Area<'_>) -> Result<(), Failure>,
) -> Result<String, ChartError> {
    let legend_px = LEGEND_LINE_PX * (legend.len() as u32 + 1);
    let size = (WIDTH_PX, height_px.max(legend_px));
    let mut svg = String::new();
    let drawn = (|| {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let (area, beside) = root.split_horizontally(WIDTH_PX - LEGEND_PX);
        body(&area)?;
        draw_legend(&beside, legend)?;
        Ok(root.present()?)
    })();
    drawn.map_err(|source| ChartError { chart: chart(), source })?;
    // As wide as where it stands allows. Quotation marks in texts are escaped, so that what is replaced is an attribute.
    let size = format!("width=\"{}\" height=\"{}\" ", size.0, size.1);
    let named = format!("role=\"img\" aria-label=\"{}\" ", escaped(&chart()));
    Ok(svg.replacen(&size, &named, 1).replace("\"#000000\"", "\"currentColor\""))
}

/// As a value in quotation marks.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn draw_legend<'n>(area: &Area<'_>, names: impl Iterator<Item = &'n str>) -> Result<(), Failure> {
    for (number, name) in names.enumerate() {
        let y = 14 + LEGEND_LINE_PX as i32 * number as i32;
        area.draw(&Rectangle::new([(8, y), (18, y + 10)], style(number)))?;
        area.draw(&Text::new(name.to_owned(), (24, y), ink(12)))?;
    }
    Ok(())
}

/// Axes in `area`, with `labels_px` to the left of them.
pub(crate) fn plot<'a, 'b, X, Y>(
    area: &'a Area<'b>,
    (x, y): (X, Y),
    labels_px: u32,
) -> Result<Plot<'a, 'b, X::CoordDescType, Y::CoordDescType>, Failure>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
{
    let mut builder = ChartBuilder::on(area);
    builder.margin(8).x_label_area_size(40).y_label_area_size(labels_px);
    Ok(builder.build_cartesian_2d(x, y)?)
}

/// The mesh and what stands at the axes; an axis upwards without a label has no numbers.
pub(crate) fn mesh<X, Y>(plot: &mut Plot<'_, '_, X, Y>, x: &str, y: Option<&str>) -> Result<(), Failure>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let number = |number: &f64| short(*number);
    let mut mesh = plot.configure_mesh();
    mesh.axis_style(INK.mix(0.6)).label_style(ink(12)).axis_desc_style(ink(12));
    mesh.bold_line_style(INK.mix(0.15)).light_line_style(TRANSPARENT);
    mesh.x_desc(x).x_labels(8).x_label_formatter(&number);
    match y {
        Some(y) => mesh.y_desc(y).y_labels(6).y_label_formatter(&number),
        None => mesh.disable_y_mesh().y_labels(0),
    };
    Ok(mesh.draw()?)
}

/// A colour; after the last the first again.
pub(crate) fn shade(number: usize) -> RGBAColor {
    PALETTE[number % PALETTE.len()].mix(1.0)
}

/// How a line and its dots are drawn: those whose colour another has already are thinner, and hollow. Paler ones would not be
/// seen on one of the two pages.
pub(crate) fn style(number: usize) -> ShapeStyle {
    if number < PALETTE.len() { shade(number).stroke_width(2).filled() } else { shade(number).stroke_width(1) }
}

pub(crate) fn ink(px: u32) -> TextStyle<'static> {
    ("sans-serif", px).into_font().color(&INK)
}

/// A number at an axis: `250`, `1.5k`, `3M`, `0.25`, `1e-3`.
fn short(number: f64) -> String {
    let trimmed = |number: f64, digits: usize| {
        let text = format!("{number:.digits$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    let (number, unit) = match number.abs() {
        size if size >= 1e15 || (size < 0.01 && size > 0.0) => {
            let power = size.log10().floor();
            return format!("{}e{power}", trimmed(number / 10_f64.powf(power), 2));
        }
        size if size >= 1e9 => (number / 1e9, "G"),
        size if size >= 1e6 => (number / 1e6, "M"),
        size if size >= 1e3 => (number / 1e3, "k"),
        _ => (number, ""),
    };
    trimmed(number, if number.abs() < 10.0 { 3 } else { 1 }) + unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_at_an_axis_are_short() {
        let shown = [0.0, 0.25, 7.5, 12.0, 250.0, 1_500.0, 9_999.0, 15_000.0, 3e6, 2e7, 4e9].map(short);
        assert_eq!(shown, ["0", "0.25", "7.5", "12", "250", "1.5k", "9.999k", "15k", "3M", "20M", "4G"]);
        assert_eq!([0.001, 0.0025, -0.002, 0.01, 1e15].map(short), ["1e-3", "2.5e-3", "-2e-3", "0.01", "1e15"]);
    }

    /// The contrast that WCAG 2 asks of graphics is 3 to 1.
    #[test]
    fn colours_are_seen_on_white_and_on_near_black() {
        let linear = |part: u8| match f64::from(part) / 255.0 {
            part if part <= 0.040_45 => part / 12.92,
            part => ((part + 0.055) / 1.055).powf(2.4),
        };
        let light = |RGBColor(r, g, b): RGBColor| 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b) + 0.05;
        for colour in PALETTE {
            let (on_white, on_black) = (1.05 / light(colour), light(colour) / light(RGBColor(22, 24, 27)));
            assert!(on_white >= 3.0 && on_black >= 3.0, "{colour:?}: {on_white:.2} and {on_black:.2}");
        }
    }
}
