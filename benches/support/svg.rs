//! Line charts in SVG, legible on a light and on a dark page.

use std::fmt::Write as _;

pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: Axis<'a>,
    pub(crate) y: Axis<'a>,
    /// Drawn in this order: later lines cover earlier ones.
    pub(crate) lines: Vec<Line<'a>>,
}

/// An axis from 0, with its name and the distance of its ticks.
pub(crate) struct Axis<'a> {
    pub(crate) name: &'a str,
    pub(crate) end: f64,
    pub(crate) tick: f64,
}

pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
// The space around the plot.
const TOP: f64 = 54.0;
const RIGHT: f64 = 16.0;
const BOTTOM: f64 = 44.0;
const LEFT: f64 = 56.0;

impl Chart<'_> {
    pub(crate) fn draw(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n{STYLE}",
            self.title
        );
        text(&mut svg, (LEFT, 20.0), "title", self.title);
        self.ticks(&mut svg);
        let mut legend = LEFT;
        for (number, Line { name, points }) in self.lines.iter().enumerate() {
            let points: Vec<_> = points
                .iter()
                .map(|&(x, y)| format!("{:.1},{:.1}", self.across(x), self.down(y)))
                .collect();
            draw(
                &mut svg,
                format_args!("<polyline class=\"line-{number}\" points=\"{}\"/>", points.join(" ")),
            );
            draw(&mut svg, format_args!("<path class=\"line-{number}\" d=\"M{legend} 36h18\"/>"));
            text(&mut svg, (legend + 24.0, 40.0), "", name);
            legend += 44.0 + 7.0 * name.chars().count() as f64;
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn ticks(&self, svg: &mut String) {
        for x in steps(&self.x) {
            text(svg, (self.across(x), HEIGHT - BOTTOM + 16.0), "middle", &format!("{x}"));
        }
        for y in steps(&self.y) {
            let down = self.down(y);
            draw(
                svg,
                format_args!("<path class=\"grid\" d=\"M{LEFT} {down:.1}H{}\"/>", WIDTH - RIGHT),
            );
            text(svg, (LEFT - 8.0, down + 4.0), "end", &format!("{y}"));
        }
        text(svg, ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0), "middle", self.x.name);
        let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
        draw(
            svg,
            format_args!(
                "<text class=\"middle\" transform=\"translate(16 {middle}) rotate(-90)\">{}</text>",
                self.y.name
            ),
        );
    }

    fn across(&self, x: f64) -> f64 {
        LEFT + x / self.x.end * (WIDTH - LEFT - RIGHT)
    }

    fn down(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - y.min(self.y.end) / self.y.end * (HEIGHT - TOP - BOTTOM)
    }
}

fn steps(axis: &Axis<'_>) -> impl Iterator<Item = f64> + use<> {
    let tick = axis.tick;
    (0..=(axis.end / tick) as usize).map(move |step| step as f64 * tick)
}

fn text(svg: &mut String, (x, y): (f64, f64), class: &str, text: &str) {
    draw(svg, format_args!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"));
}

fn draw(svg: &mut String, element: std::fmt::Arguments<'_>) {
    writeln!(svg, "{element}").expect("a string takes it");
}

const STYLE: &str = "<style>
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 14px }
.middle { text-anchor: middle }
.end { text-anchor: end }
polyline, path { fill: none; stroke-width: 1.5; stroke-linejoin: round }
.grid { stroke: #d0d7de; stroke-width: 1 }
.line-0 { stroke: #bc4c00 }
.line-1 { stroke: #6e7781 }
.line-2 { stroke: #0969da }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.grid { stroke: #30363d }
.line-0 { stroke: #f0883e }
.line-1 { stroke: #8b949e }
.line-2 { stroke: #58a6ff }
}
</style>
";
