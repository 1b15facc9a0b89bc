//! Charts as SVG, for the README and the guides: bars, lines and dashboards, in the colours of the reader's theme.
//!
//! `#[path = "support/svg.rs"] mod svg;` from a bench. Plain Rust without dependencies. An SVG in an `<img>` loads nothing, so the
//! style is in the file, and the fonts are those of the system.
#![allow(dead_code, reason = "each bench draws one kind of chart")]

use std::fmt::Write;

/// Horizontal bars: one group for each row, one bar for each series.
pub(crate) struct Bars<'a> {
    pub(crate) title: &'a str,
    pub(crate) subtitle: &'a str,
    /// The legend, drawn if there are several.
    pub(crate) series: &'a [&'a str],
    /// A longer bar is cut off and marked, so that it does not flatten the others.
    pub(crate) longest: f64,
    pub(crate) rows: &'a [Row],
}

pub(crate) struct Row {
    pub(crate) label: String,
    /// True for the row that the chart is about.
    pub(crate) bold: bool,
    pub(crate) bars: Vec<Bar>,
}

/// A bar with the figure at its end, or a text where there is nothing to draw.
pub(crate) enum Bar {
    Value(f64, String),
    Text(String),
}

/// Lines over time, or over another quantity that grows.
pub(crate) struct Lines<'a> {
    pub(crate) title: &'a str,
    pub(crate) subtitle: &'a str,
    pub(crate) x_axis: &'a str,
    pub(crate) y_axis: &'a str,
    /// True if the steps of the vertical axis are powers of ten.
    pub(crate) logarithmic: bool,
    pub(crate) series: &'a [Series<'a>],
}

pub(crate) struct Series<'a> {
    pub(crate) name: &'a str,
    /// In the order of their first element.
    pub(crate) points: &'a [(f64, f64)],
}

/// The panels of a dashboard, three in a row, over the same time.
pub(crate) struct Panels<'a> {
    pub(crate) title: &'a str,
    pub(crate) subtitle: &'a str,
    pub(crate) x_axis: &'a str,
    pub(crate) panels: &'a [Panel],
}

pub(crate) struct Panel {
    pub(crate) title: String,
    /// Formats a value of the vertical axis.
    pub(crate) format: fn(f64) -> String,
    pub(crate) series: Vec<(String, Vec<(f64, f64)>)>,
}

const WIDTH: f64 = 820.0;
const MARGIN: f64 = 24.0;
const TOP: f64 = 74.0;
const LEGEND: f64 = 26.0;

/// Confines the style of a picture to it, so that the picture can be a part of a page.
pub(crate) fn inline(svg: &str) -> String {
    const CLASS: &str = "tower-refresh-picture";

    let confined =
        STYLE.lines().map(|line| match line.starts_with(['@', '}']) || line.is_empty() {
            true => format!("{line}\n"),
            false => format!(".{CLASS} {}\n", line.replace("} ", &format!("}} .{CLASS} "))),
        });
    let confined =
        format!("\n.{CLASS} {{ max-width: 100%; height: auto }}{}", confined.collect::<String>());
    let svg = svg.replacen(STYLE, &confined, 1);
    svg.replacen("<svg ", &format!("<svg class=\"{CLASS}\" "), 1)
}

/// Draws a bar chart.
pub(crate) fn bars(chart: &Bars<'_>) -> String {
    const LABELS: f64 = 236.0;
    const FIGURES: f64 = 150.0;
    const BAR: f64 = 13.0;
    const GAP: f64 = 11.0;

    let several = chart.series.len() > 1;
    let top = if several { TOP + LEGEND } else { TOP };
    let group = BAR * chart.series.len() as f64 + GAP;
    let height = top + group * chart.rows.len() as f64 + MARGIN - GAP;
    let left = MARGIN + LABELS;
    let values = chart.rows.iter().flat_map(|row| &row.bars).filter_map(|bar| match bar {
        Bar::Value(value, _) => Some(*value),
        Bar::Text(_) => None,
    });
    let longest = values.fold(f64::MIN_POSITIVE, f64::max).min(chart.longest);
    let scale = (WIDTH - left - FIGURES - MARGIN) / longest;

    let mut svg = begin(height, chart.title, chart.subtitle);
    if several {
        legend(&mut svg, chart.series);
    }
    for (index, row) in chart.rows.iter().enumerate() {
        let y = top + group * index as f64;
        let class = if row.bold { "label bold" } else { "label" };
        let middle = y + (group - GAP) / 2.0 + 4.5;
        text(&mut svg, left - 10.0, middle, class, "end", &row.label);
        for (series, bar) in row.bars.iter().enumerate() {
            let y = y + BAR * series as f64;
            let (length, label, class) = match bar {
                Bar::Value(value, label) => {
                    ((value.min(longest) * scale).max(2.0), label, "figure")
                }
                Bar::Text(label) => (0.0, label, "muted"),
            };
            let cut_off = matches!(bar, Bar::Value(value, _) if *value > longest);
            if length > 0.0 {
                let height = BAR - 2.0;
                let _ = writeln!(
                    svg,
                    r#"<rect class="s{series}" x="{left:.1}" y="{y:.1}" width="{length:.1}" height="{height:.1}" rx="2"/>"#
                );
            }
            if cut_off {
                let x = left + length - 26.0;
                let _ = writeln!(
                    svg,
                    r#"<path class="cut" d="M{x:.1} {:.1} l8 {}"/>"#,
                    y + BAR,
                    -BAR - 2.0
                );
            }
            text(&mut svg, left + length + 6.0, y + BAR - 3.0, class, "start", label);
        }
    }
    let _ = writeln!(
        svg,
        r#"<line class="axis" x1="{left:.1}" x2="{left:.1}" y1="{:.1}" y2="{:.1}"/>"#,
        top - 6.0,
        height - MARGIN + 6.0
    );
    svg + "</svg>\n"
}

/// Draws a line chart. Points in one column of pixels become a vertical line, so that no peak is lost.
pub(crate) fn lines(chart: &Lines<'_>) -> String {
    const HEIGHT: f64 = 400.0;
    const LEFT: f64 = MARGIN + 62.0;
    const BOTTOM: f64 = HEIGHT - 54.0;
    const RIGHT: f64 = WIDTH - MARGIN;

    let top = TOP + LEGEND;
    let points = || chart.series.iter().flat_map(|series| series.points);
    let x_range = Range::of(points().map(|point| point.0), false);
    let y_range = Range::of(points().map(|point| point.1), chart.logarithmic);
    let x = |value: f64| LEFT + (RIGHT - LEFT) * x_range.part(value);
    let y = |value: f64| BOTTOM - (BOTTOM - top) * y_range.part(value);

    let mut svg = begin(HEIGHT, chart.title, chart.subtitle);
    let names: Vec<_> = chart.series.iter().map(|series| series.name).collect();
    legend(&mut svg, &names);
    for tick in y_range.ticks() {
        let y = y(tick);
        let _ = writeln!(
            svg,
            r#"<line class="grid" x1="{LEFT:.1}" x2="{RIGHT:.1}" y1="{y:.1}" y2="{y:.1}"/>"#
        );
        text(&mut svg, LEFT - 8.0, y + 4.0, "muted", "end", &number(tick));
    }
    for tick in x_range.ticks() {
        text(&mut svg, x(tick), BOTTOM + 18.0, "muted", "middle", &number(tick));
    }
    text(&mut svg, (LEFT + RIGHT) / 2.0, BOTTOM + 38.0, "muted", "middle", chart.x_axis);
    let middle = (top + BOTTOM) / 2.0;
    let _ = writeln!(
        svg,
        r#"<text class="muted" text-anchor="middle" transform="translate({:.1} {middle:.1}) rotate(-90)">{}</text>"#,
        MARGIN + 6.0,
        escaped(chart.y_axis)
    );
    // The first one on top.
    for (index, series) in chart.series.iter().enumerate().rev() {
        let mut path = String::new();
        for column in columns(series.points, x) {
            let (low, high) = (y(column.low), y(column.high));
            let _ = write!(path, "{:.0},{low:.1} ", column.x);
            if low - high >= 0.5 {
                let _ = write!(path, "{:.0},{high:.1} {:.0},{low:.1} ", column.x, column.x);
            }
        }
        let _ = writeln!(svg, r#"<polyline class="l{index}" points="{}"/>"#, path.trim_end());
    }
    svg + "</svg>\n"
}

/// Draws a dashboard.
pub(crate) fn panels(chart: &Panels<'_>) -> String {
    const GAP: f64 = 20.0;
    const LEFT: f64 = 46.0;
    const PANEL: f64 = (WIDTH - 2.0 * MARGIN - 2.0 * GAP) / 3.0;
    const PLOT: f64 = 96.0;
    const LINE: f64 = 15.0;

    let points = || chart.panels.iter().flat_map(|it| &it.series).flat_map(|it| &it.1);
    let x_range = Range::of(points().map(|point| point.0), false);
    let mut svg = String::new();
    let mut top = TOP;
    for row in chart.panels.chunks(3) {
        let mut lines_of_legends = 0.0_f64;
        for (index, panel) in row.iter().enumerate() {
            let left = MARGIN + index as f64 * (PANEL + GAP);
            text(&mut svg, left, top + 12.0, "label bold", "start", &panel.title);
            let end = top + 24.0 + PLOT;
            let values = panel.series.iter().flat_map(|series| &series.1).map(|point| point.1);
            let mut range = Range::of(values.clone(), false);
            range.from = values.fold(0.0, f64::min);
            // A line of zeros is at the bottom.
            range.to = if range.to > 1e-9 { range.to } else { 1.0 };
            let x = |value: f64| left + LEFT + (PANEL - LEFT) * x_range.part(value);
            let y = |value: f64| end - PLOT * range.part(value);
            for tick in range.few_ticks() {
                let (y, right) = (y(tick), left + PANEL);
                let _ = writeln!(
                    svg,
                    r#"<line class="grid" x1="{:.1}" x2="{right:.1}" y1="{y:.1}" y2="{y:.1}"/>"#,
                    left + LEFT
                );
                let label = (panel.format)(tick);
                text(&mut svg, left + LEFT - 6.0, y + 4.0, "muted", "end", &label);
            }
            for tick in x_range.few_ticks() {
                text(&mut svg, x(tick), end + 14.0, "muted", "middle", &number(tick));
            }
            // The first one on top.
            for (index, (_, points)) in panel.series.iter().enumerate().rev() {
                let mut path = String::new();
                for (at, value) in points {
                    let _ = write!(path, "{:.0},{:.1} ", x(*at), y(*value));
                }
                let path = path.trim_end();
                let _ = writeln!(svg, r#"<polyline class="l{index}" points="{path}"/>"#);
            }
            let (mut at, mut line) = (left, 0.0_f64);
            for (index, (name, _)) in panel.series.iter().enumerate() {
                let width = 15.0 + 6.6 * name.chars().count() as f64 + 10.0;
                if at > left && at + width > left + PANEL + GAP / 2.0 {
                    (at, line) = (left, line + 1.0);
                }
                let y = end + 34.0 + line * LINE;
                let _ = writeln!(
                    svg,
                    r#"<rect class="s{index}" x="{at:.1}" y="{:.1}" width="10" height="10" rx="2"/>"#,
                    y - 9.0
                );
                text(&mut svg, at + 15.0, y, "muted", "start", name);
                at += width;
            }
            lines_of_legends = lines_of_legends.max(line);
        }
        top += 24.0 + PLOT + 34.0 + lines_of_legends * LINE + 26.0;
    }
    text(&mut svg, WIDTH / 2.0, top, "muted", "middle", chart.x_axis);
    begin(top + MARGIN, chart.title, chart.subtitle) + &svg + "</svg>\n"
}

struct Column {
    x: f64,
    low: f64,
    high: f64,
}

fn columns(points: &[(f64, f64)], x: impl Fn(f64) -> f64) -> Vec<Column> {
    let mut columns = Vec::<Column>::new();
    for (at, value) in points {
        let x = x(*at).round();
        match columns.last_mut() {
            Some(last) if last.x == x => {
                last.low = last.low.min(*value);
                last.high = last.high.max(*value);
            }
            _ => columns.push(Column { x, low: *value, high: *value }),
        }
    }
    columns
}

/// The values of an axis.
struct Range {
    from: f64,
    to: f64,
    logarithmic: bool,
}

impl Range {
    fn of(values: impl Iterator<Item = f64> + Clone, logarithmic: bool) -> Self {
        let to = values.clone().fold(f64::MIN_POSITIVE, f64::max);
        if !logarithmic {
            return Self { from: 0.0, to, logarithmic };
        }
        let from = values.filter(|value| *value > 0.0).fold(to, f64::min);
        let from = 10_f64.powf(from.log10().floor());
        let to = 10_f64.powf(to.log10().ceil()).max(from * 10.0);
        Self { from, to, logarithmic }
    }

    /// Returns the place of a value: 0 at the beginning of the axis, 1 at its end.
    fn part(&self, value: f64) -> f64 {
        let part = if self.logarithmic {
            (value.max(self.from) / self.from).log10() / (self.to / self.from).log10()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        part.clamp(0.0, 1.0)
    }

    /// Returns at most five ticks, from below 0 if the axis begins there.
    fn few_ticks(&self) -> Vec<f64> {
        let span = self.to - self.from;
        let magnitude = 10_f64.powf(span.log10().floor());
        let steps = [0.2, 0.25, 0.5, 1.0].map(|step| step * magnitude);
        let step = steps.into_iter().find(|step| span / step <= 4.0).unwrap_or(2.5 * magnitude);
        let (first, last) = ((self.from / step).ceil() as i32, (self.to / step).floor() as i32);
        (first..=last).map(|index| f64::from(index) * step).collect()
    }

    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let decades = (self.to / self.from).log10().round() as i32;
            return (0..=decades).map(|decade| self.from * 10_f64.powi(decade)).collect();
        }
        let magnitude = 10_f64.powf(self.to.log10().floor());
        let steps = [0.1, 0.2, 0.5, 1.0].map(|step| step * magnitude);
        let step = steps.into_iter().find(|step| self.to / step <= 8.0).unwrap_or(2.0 * magnitude);
        (0..=(self.to / step) as u32).map(|index| f64::from(index) * step).collect()
    }
}

fn begin(height: f64, title: &str, subtitle: &str) -> String {
    let (title, subtitle) = (escaped(title), escaped(subtitle));
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" width="{WIDTH}" height="{height:.0}" role="img">
<title>{title}</title>
<style>{STYLE}</style>
<rect class="page" width="100%" height="100%" rx="6"/>
<text class="title" x="{MARGIN}" y="34">{title}</text>
<text class="muted" x="{MARGIN}" y="54">{subtitle}</text>
"#
    )
}

const STYLE: &str = "
text { font: 13px system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', Arial, sans-serif; fill: #1f2328 }
.title { font-size: 17px; font-weight: 600 }
.bold { font-weight: 700 }
.figure { font-size: 12px; font-variant-numeric: tabular-nums }
.muted { font-size: 12px; fill: #59636e }
.page { fill: #ffffff }
.cut { stroke: #ffffff; stroke-width: 4 }
.axis { stroke: #818b98 } .grid { stroke: #d1d9e0 }
.s0 { fill: #0969da } .s1 { fill: #bc4c00 } .s2 { fill: #8250df } .s3 { fill: #1a7f37 } .s4 { fill: #bf3989 } .s5 { fill: #7d4e00 } .s6 { fill: #1b7c83 }
polyline { fill: none; stroke-width: 1.5; stroke-linejoin: round }
.l0 { stroke: #0969da } .l1 { stroke: #bc4c00 } .l2 { stroke: #8250df } .l3 { stroke: #1a7f37 } .l4 { stroke: #bf3989 } .l5 { stroke: #7d4e00 } .l6 { stroke: #1b7c83 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc }
.muted { fill: #9198a1 }
.page { fill: #0d1117 }
.cut { stroke: #0d1117 }
.axis { stroke: #656c76 } .grid { stroke: #3d444d }
.s0 { fill: #4493f8 } .s1 { fill: #db6d28 } .s2 { fill: #ab7df8 } .s3 { fill: #3fb950 } .s4 { fill: #db61a2 } .s5 { fill: #d29922 } .s6 { fill: #39c5cf }
.l0 { stroke: #4493f8 } .l1 { stroke: #db6d28 } .l2 { stroke: #ab7df8 } .l3 { stroke: #3fb950 } .l4 { stroke: #db61a2 } .l5 { stroke: #d29922 } .l6 { stroke: #39c5cf }
}
";

fn legend(svg: &mut String, names: &[&str]) {
    let mut x = MARGIN;
    for (index, name) in names.iter().enumerate() {
        let _ = writeln!(
            svg,
            r#"<rect class="s{index}" x="{x:.1}" y="68" width="12" height="12" rx="2"/>"#
        );
        text(svg, x + 18.0, 78.5, "label", "start", name);
        // An average glyph of the system's fonts is 6.6 pixels wide.
        x += 18.0 + 6.6 * name.chars().count() as f64 + 22.0;
    }
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, anchor: &str, text: &str) {
    let text = escaped(text);
    let _ = writeln!(
        svg,
        r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Formats a number with separators between thousands.
pub(crate) fn number(value: f64) -> String {
    if value != 0.0 && value.abs() < 10.0 && value.fract() != 0.0 {
        return format!("{}", (value * 1e3).round() / 1e3);
    }
    let digits = format!("{:.0}", value.abs());
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if value <= -0.5 { format!("−{grouped}") } else { grouped }
}
