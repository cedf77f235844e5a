//! Lines over two axes.

use std::ops::Range;

use plotters::{
    coord::{
        combinators::IntoLogRange,
        ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
    },
    series::LineSeries,
};

use crate::{
    ChartError,
    theme::{self, Area, Failure},
};

const HEIGHT_PX: u32 = 320;
const LABELS_PX: u32 = 64;
/// Lines of few points are choices, not a course: each point of theirs is a dot.
const DOTS_MAX: usize = 40;
/// Larger numbers are not shown, nor smaller ones than this goes into 1 where ratios are: the drawing library cannot divide an
/// axis as long as that.
const SHOWN_MAX: f64 = 1e30;

/// What equal distances on an axis are, and where it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Equal differences, from 0 on.
    FromZero,
    /// Equal differences, from the least value on.
    Fitted,
    /// Equal ratios. It shows no values of 0 and below.
    Logarithmic,
}

/// An axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis<'a> {
    /// What it is, with its unit.
    pub label: &'a str,
    /// How values lie on it.
    pub scale: Scale,
}

impl<'a> Axis<'a> {
    /// An axis that starts at 0.
    pub const fn from_zero(label: &'a str) -> Self {
        Self { label, scale: Scale::FromZero }
    }

    /// An axis that starts at the least value.
    pub const fn fitted(label: &'a str) -> Self {
        Self { label, scale: Scale::Fitted }
    }

    /// An axis of ratios.
    pub const fn logarithmic(label: &'a str) -> Self {
        Self { label, scale: Scale::Logarithmic }
    }

    fn shows(&self, value: f64) -> bool {
        value.abs() <= SHOWN_MAX && (value >= 1.0 / SHOWN_MAX || self.scale != Scale::Logarithmic)
    }

    fn is_logarithmic(&self) -> bool {
        self.scale == Scale::Logarithmic
    }

    /// A range that holds all of `values` and is not empty.
    fn range(&self, values: impl Iterator<Item = f64>) -> Range<f64> {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        match self.scale {
            Scale::Logarithmic if low > high => 1.0..10.0,
            Scale::Logarithmic => low / 1.2..high * 1.2,
            Scale::FromZero => spread(low.min(0.0), high.max(0.0), 1.05),
            Scale::Fitted => spread(low, high, 1.0),
        }
    }
}

/// From `low` on, `room` times as far as to `high`. Where they are as good as one it goes further: the drawing library would
/// look for ever for numbers between them.
pub(crate) fn spread(low: f64, high: f64, room: f64) -> Range<f64> {
    let span = high - low;
    let span_min = (1e-9 * low.abs().max(high.abs())).max(1.0 / SHOWN_MAX);
    if !span.is_finite() {
        0.0..1.0
    } else if span > span_min {
        low..low + span * room
    } else {
        low..low + low.abs().max(1.0)
    }
}

/// A line.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What the legend calls it.
    pub name: String,
    /// Its points, from left to right. Those that the axes cannot show, such as what is no finite number, are left out.
    pub points: Vec<(f64, f64)>,
}

/// Lines, with a legend beside them.
#[derive(Debug, Clone, PartialEq)]
pub struct Lines<'a> {
    /// What is to the right.
    pub x: Axis<'a>,
    /// What is up.
    pub y: Axis<'a>,
    /// The lines.
    pub series: Vec<Series>,
}

impl Lines<'_> {
    /// Whether there is no point to show.
    pub fn is_empty(&self) -> bool {
        self.series.iter().all(|series| self.shown(series).next().is_none())
    }

    /// Draws them; without a point to show, the axes alone.
    pub fn svg(&self) -> Result<String, ChartError> {
        let points = || self.series.iter().flat_map(|series| self.shown(series));
        let x = self.x.range(points().map(|(x, _)| x));
        let y = self.y.range(points().map(|(_, y)| y));
        let chart = || format!("{} by {}", self.y.label, self.x.label);
        let names = self.series.iter().map(|series| series.name.as_str());
        theme::draw(chart, HEIGHT_PX, names, |area| match (self.x.is_logarithmic(), self.y.is_logarithmic()) {
            (false, false) => self.draw(area, (x, y)),
            (true, false) => self.draw(area, (x.log_scale(), y)),
            (false, true) => self.draw(area, (x, y.log_scale())),
            (true, true) => self.draw(area, (x.log_scale(), y.log_scale())),
        })
    }

    fn shown<'s>(&'s self, series: &'s Series) -> impl Iterator<Item = (f64, f64)> {
        series.points.iter().copied().filter(|&(x, y)| self.x.shows(x) && self.y.shows(y))
    }

    fn draw<X, Y>(&self, area: &Area<'_>, ranges: (X, Y)) -> Result<(), Failure>
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
    {
        let mut plot = theme::plot(area, ranges, LABELS_PX)?;
        theme::mesh(&mut plot, self.x.label, Some(self.y.label))?;
        for (number, series) in self.series.iter().enumerate() {
            let style = theme::style(number);
            let dots_px = if series.points.len() <= DOTS_MAX { 3 } else { 0 };
            plot.draw_series(LineSeries::new(self.shown(series), style).point_size(dots_px))?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const SCALES: [fn(&'static str) -> Axis<'static>; 3] = [Axis::from_zero, Axis::fitted, Axis::logarithmic];

    fn series(name: &str, points: &[(f64, f64)]) -> Series {
        Series { name: name.to_owned(), points: points.to_vec() }
    }

    /// Each pair of scales, for axes that are called `tasks` and `s`.
    fn axes() -> impl Iterator<Item = (Axis<'static>, Axis<'static>)> {
        SCALES.iter().flat_map(|x| SCALES.iter().map(|y| (x("tasks"), y("s"))))
    }

    #[test]
    fn lines_are_drawn_whatever_the_numbers() {
        let all = [
            &[][..],
            &[(1.0, 0.0)],
            &[(0.0, f64::NAN), (5.0, f64::INFINITY)],
            &[(0.0, 1.0), (1e9, 2e7)],
            &[(-3.0, -2.0), (-1.0, -1.0)],
            &[(1e30, 1e-30), (1e-30, 1e30), (1e-310, 1e300), (f64::MAX, 1.0)],
            &[(0.0, 0.0), (5e-324, 5e-324)],
            &[(1e17, 1e17), (1e17 + 16.0, 1e17 + 16.0)],
        ];
        for ((x, y), points) in axes().flat_map(|axes| all.map(|points| (axes, points))) {
            let svg = Lines { x, y, series: vec![series("a & b", points)] }.svg().unwrap();
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
            assert!(svg.contains("a &amp; b") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn plots_take_the_colours_of_their_page() {
        let points = [(1.0, 0.0), (10.0, 5.0), (100.0, 50.0)];
        for (x, y) in axes() {
            let svg = Lines { x, y, series: vec![series("a", &points), series("b", &points)] }.svg().unwrap();
            assert!(svg.contains("<polyline") && svg.contains("currentColor") && !svg.contains("#000000"), "{svg}");
            assert!(svg.contains(">\na\n</text>") && svg.contains(">\nb\n</text>"), "{svg}");
            let root = svg.split_once('>').unwrap().0;
            assert!(root.contains("viewBox") && !root.contains("width=") && !root.contains("height="), "{root}");
            assert!(!svg.contains("color-scheme") && crate::as_file(&svg).contains("color-scheme:light dark"));
        }
        // What a line is called is not taken for a colour.
        let named = Lines { x: Axis::fitted("x"), y: Axis::fitted("y"), series: vec![series("\"#000000\"", &points)] };
        assert!(named.svg().unwrap().contains("&quot;#000000&quot;"));
    }

    #[test]
    fn what_a_logarithm_cannot_show_is_left_out() {
        let of = |axis: fn(&'static str) -> Axis<'static>| Lines {
            x: axis("x"),
            y: axis("y"),
            series: vec![series("none", &[(0.0, 1.0), (1.0, -1.0)])],
        };
        assert!(of(Axis::logarithmic).is_empty() && !of(Axis::logarithmic).svg().unwrap().contains("<circle"));
        assert!(!of(Axis::fitted).is_empty());
        assert_eq!(of(Axis::fitted).svg().unwrap().matches("<circle").count(), 2);
    }

    #[test]
    fn few_points_are_dots_and_many_names_make_the_chart_higher() {
        let points: Vec<_> = (0..=DOTS_MAX).map(|n| (n as f64, n as f64)).collect();
        let lines = |series| Lines { x: Axis::fitted("x"), y: Axis::fitted("y"), series };
        let svg = lines(vec![series("many", &points), series("few", &points[1..])]).svg().unwrap();
        assert_eq!(svg.matches("<circle").count(), DOTS_MAX);
        assert!(svg.contains("viewBox=\"0 0 940 320\""));
        let svg = lines(vec![series("one of many", &points); 40]).svg().unwrap();
        assert!(svg.contains("viewBox=\"0 0 940 656\""), "{}", &svg[..100]);
    }

    #[test]
    fn ranges_hold_what_they_show() {
        let range = |axis: Axis<'_>, values: &[f64]| axis.range(values.iter().copied());
        assert_eq!(range(Axis::fitted(""), &[2.0, 4.0]), 2.0..4.0);
        assert_eq!(range(Axis::from_zero(""), &[2.0, 4.0]), 0.0..4.2);
        assert_eq!(range(Axis::from_zero(""), &[-4.0]).start, -4.0);
        assert!(range(Axis::from_zero(""), &[-4.0]).end >= 0.0);
        assert_eq!(range(Axis::logarithmic(""), &[12.0, 100.0]), 10.0..120.0);
        for scale in SCALES {
            for values in [&[][..], &[0.0], &[1e18], &[1e30], &[f64::MAX], &[-1e30, 1e30]] {
                let shown: Vec<_> = values.iter().copied().filter(|&value| scale("").shows(value)).collect();
                let range = range(scale(""), &shown);
                assert!(range.start < range.end && range.end.is_finite(), "{values:?}: {range:?}");
            }
        }
    }
}
