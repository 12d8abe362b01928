//! The arena over time, as a picture: a rectangle for each buffer, steps to the right, addresses upwards.

use std::fmt::Write;
use std::ops::Range;

/// What a buffer is for: its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A model input.
    Input,
    /// A model output.
    Output,
    /// Anything between layers.
    Tensor,
    /// Scratch and sums.
    Scratch,
}

/// A buffer, or a row of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// What it is for.
    pub kind: Kind,
    /// Shown when it is pointed at.
    pub name: String,
    /// Steps in which it is live.
    pub steps: Range<usize>,
    /// Where it is.
    pub bytes: Range<u64>,
}

/// What is drawn.
#[derive(Clone, Debug)]
pub struct Timeline<'a> {
    /// Heading.
    pub title: String,
    /// Steps of a run.
    pub steps: usize,
    /// Size of the arena.
    pub bytes: u64,
    /// Live bytes at each step.
    pub live: &'a [u64],
    /// Names of layers, at the steps at which they begin.
    pub layers: Vec<(usize, String)>,
    /// The buffers.
    pub bars: Vec<Bar>,
}

const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 80.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 110.0;

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            // No other control character may be in XML.
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The picture as SVG.
pub fn svg(timeline: &Timeline) -> String {
    let steps = timeline.steps.max(1) as f64;
    let bytes = timeline.bytes.max(1) as f64;
    let x = |step: usize| LEFT + step as f64 * WIDTH / steps;
    let y = |at: u64| TOP + HEIGHT - at as f64 * HEIGHT / bytes;
    let (width, height) = (LEFT + WIDTH + 20.0, TOP + HEIGHT + BOTTOM);
    let mut out = String::new();
    let mut line = |text: std::fmt::Arguments| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{text}");
    };
    line(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">"
    ));
    line(format_args!("<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"));
    line(format_args!(
        "<text x=\"{LEFT}\" y=\"24\" font-size=\"16\">{}</text>",
        escape(&timeline.title)
    ));
    for bar in &timeline.bars {
        let fill = match bar.kind {
            Kind::Input => "#5b8def",
            Kind::Output => "#4caf7d",
            Kind::Tensor => "#c9a24b",
            Kind::Scratch => "#c0504d",
        };
        let (left, right) = (x(bar.steps.start), x(bar.steps.end));
        let (top, bottom) = (y(bar.bytes.end), y(bar.bytes.start));
        line(format_args!(
            "<rect x=\"{left:.2}\" y=\"{top:.2}\" width=\"{:.2}\" height=\"{:.2}\" fill=\"{fill}\" fill-opacity=\"0.75\" stroke=\"white\" \
             stroke-width=\"0.3\"><title>{}: bytes {}..{}, steps {}..{}</title></rect>",
            right - left,
            bottom - top,
            escape(&bar.name),
            bar.bytes.start,
            bar.bytes.end,
            bar.steps.start,
            bar.steps.end
        ));
    }
    let mut path = String::new();
    for (step, live) in timeline.live.iter().enumerate() {
        let _ = write!(
            path,
            "{:.2},{:.2} {:.2},{:.2} ",
            x(step),
            y(*live),
            x(step + 1),
            y(*live)
        );
    }
    line(format_args!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"black\" stroke-width=\"1\"/>",
        path.trim_end()
    ));
    for quarter in 0..=4u64 {
        let at = timeline.bytes * quarter / 4;
        line(format_args!(
            "<text x=\"{}\" y=\"{:.2}\" text-anchor=\"end\">{at}</text>",
            LEFT - 8.0,
            y(at) + 4.0
        ));
    }
    for (step, name) in &timeline.layers {
        let (at, below) = (x(*step) + 8.0, TOP + HEIGHT + 10.0);
        line(format_args!(
            "<text transform=\"translate({at:.2} {below:.2}) rotate(60)\">{}</text>",
            escape(name)
        ));
    }
    line(format_args!("</svg>"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out() {
        let bar = Bar {
            kind: Kind::Tensor,
            name: "<a>&\"\u{1}".into(),
            steps: 0..1,
            bytes: 0..16,
        };
        let picture = svg(&Timeline {
            title: "x < y".into(),
            steps: 1,
            bytes: 16,
            live: &[16],
            layers: vec![(0, "conv2d".into())],
            bars: vec![bar],
        });
        assert!(picture.contains("&lt;a&gt;&amp;&quot;\u{fffd}: bytes 0..16, steps 0..1"));
        assert!(picture.contains("x &lt; y") && picture.contains("points=\"80.00,40.00 1280.00,40.00\""));
        assert!(picture.ends_with("</svg>\n"));
    }
}
