//! An image drawn as SVG: a treemap of layers and their paths, and a strip of what changed when.
//!
//! The file needs nothing from outside, no script, no font but the reader's own; equal images give equal bytes. An
//! area is proportional to bytes, a colour says how often a layer changes. Text that does not fit is left out, and
//! every rectangle has a title, which browsers show.

mod strip;
mod treemap;
mod xml;

use std::fmt::Write as _;
use treemap::{Rect, squarify};
use xml::escape;

/// What is drawn.
#[derive(Debug, Clone, Default)]
pub struct Drawing {
    /// Of the image.
    pub title: String,
    /// Below it: number of layers, bytes.
    pub subtitle: String,
    /// Lowest first.
    pub layers: Vec<DrawnLayer>,
    /// How many revisions the heat strip has.
    pub revisions: usize,
}

/// A layer.
#[derive(Debug, Clone, Default)]
pub struct DrawnLayer {
    /// What it is called.
    pub label: String,
    /// How large it is, in words.
    pub size: String,
    /// How large it is.
    pub bytes: u64,
    /// Probability of change, from 0 to 1: its colour.
    pub heat: f64,
    /// How often it changes, in words.
    pub frequency: String,
    /// Name and bytes of each path.
    pub paths: Vec<(String, u64)>,
    /// Whether it changed, revision by revision, oldest first.
    pub steps: Vec<bool>,
}

const WIDTH: f64 = 1200.0;
const MARGIN: f64 = 16.0;
const HEAD: f64 = 64.0;
const MAP_HEIGHT: f64 = 620.0;
/// Space for a layer's name above its paths.
const LAYER_HEAD: f64 = 15.0;
/// What a letter is taken to be wide, of a font's size.
const LETTER: f64 = 0.58;
/// From rarely to always; all of them light, since dark text stands on them.
const COLOURS: [(f64, &str); 5] = [
    (0.02, "#d7e3ee"),
    (0.10, "#b8d4c2"),
    (0.30, "#f2dfa0"),
    (0.60, "#f3b983"),
    (1.01, "#e9897b"),
];

/// The same in words.
const WORDS: [&str; 5] = ["rarely", "sometimes", "often", "mostly", "always"];

/// A probability of change in words.
pub fn word(heat: f64) -> &'static str {
    WORDS[degree(heat)]
}

/// The document.
pub fn svg(drawing: &Drawing) -> String {
    let strip_top = HEAD + MAP_HEIGHT + 48.0;
    let height = strip_top + strip::height(drawing) + MARGIN;
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {WIDTH:.0} \
         {height:.0}\" font-family=\"sans-serif\" font-size=\"11\" fill=\"#1d2733\">"
    ));
    line(format!("<title>{}</title>", escape(&drawing.title)));
    line("<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>".to_owned());
    line(text(MARGIN, 28.0, 18.0, &drawing.title));
    line(text(MARGIN, 48.0, 12.0, &drawing.subtitle));
    map(drawing).into_iter().for_each(&mut line);
    legend(HEAD + MAP_HEIGHT + 22.0)
        .into_iter()
        .for_each(&mut line);
    strip::lines(drawing, strip_top)
        .into_iter()
        .for_each(&mut line);
    line("</svg>".to_owned());
    out
}

fn map(drawing: &Drawing) -> Vec<String> {
    let area = Rect {
        x: MARGIN,
        y: HEAD,
        width: WIDTH - 2.0 * MARGIN,
        height: MAP_HEIGHT,
    };
    let sizes: Vec<u64> = drawing.layers.iter().map(|layer| layer.bytes).collect();
    let mut lines = Vec::new();
    for (place, rect) in squarify(&sizes, area) {
        let layer = &drawing.layers[place];
        let name = format!("{}. {}", place + 1, layer.label);
        let title = format!(
            "{name}: {}, {} paths, {}",
            layer.size,
            layer.paths.len(),
            layer.frequency
        );
        lines.push(format!("<g><title>{}</title>", escape(&title)));
        lines.push(rectangle(&rect, colour(layer.heat), "#ffffff", 2.0));
        lines.extend(fitting(&rect, 11.0, &format!("{name} · {}", layer.size)));
        lines.extend(paths(layer, &rect));
        lines.push("</g>".to_owned());
    }
    lines
}

/// The paths of a layer, where there is room for them.
fn paths(layer: &DrawnLayer, rect: &Rect) -> Vec<String> {
    let inner = Rect {
        x: rect.x + 3.0,
        y: rect.y + LAYER_HEAD,
        width: rect.width - 6.0,
        height: rect.height - LAYER_HEAD - 3.0,
    };
    if layer.paths.len() < 2 || inner.width < 12.0 || inner.height < 12.0 {
        return Vec::new();
    }
    let sizes: Vec<u64> = layer.paths.iter().map(|(_, bytes)| *bytes).collect();
    let mut lines = Vec::new();
    for (place, rect) in squarify(&sizes, inner) {
        if rect.width < 3.0 || rect.height < 3.0 {
            continue;
        }
        let (name, _) = &layer.paths[place];
        lines.push(format!("<g><title>{}</title>", escape(name)));
        lines.push(rectangle(&rect, "none", "#5b6b7b", 0.5));
        lines.extend(fitting(&rect, 10.0, name));
        lines.push("</g>".to_owned());
    }
    lines
}

fn legend(y: f64) -> Vec<String> {
    let mut lines = vec![text(MARGIN, y, 11.0, "changes:")];
    for (step, ((_, colour), name)) in COLOURS.iter().zip(WORDS).enumerate() {
        let x = MARGIN + 64.0 + 100.0 * step as f64;
        let box_ = Rect {
            x,
            y: y - 10.0,
            width: 14.0,
            height: 12.0,
        };
        lines.push(rectangle(&box_, colour, "#5b6b7b", 0.5));
        lines.push(text(x + 20.0, y, 11.0, name));
    }
    lines
}

fn colour(heat: f64) -> &'static str {
    COLOURS[degree(heat)].1
}

fn degree(heat: f64) -> usize {
    let found = COLOURS.iter().position(|(up_to, _)| heat < *up_to);
    found.unwrap_or(COLOURS.len() - 1)
}

fn rectangle(rect: &Rect, fill: &str, stroke: &str, width: f64) -> String {
    format!(
        "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{fill}\" stroke=\"{stroke}\" \
         stroke-width=\"{width}\"/>",
        rect.x, rect.y, rect.width, rect.height
    )
}

fn text(x: f64, y: f64, size: f64, words: &str) -> String {
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size:.0}\">{}</text>",
        escape(words)
    )
}

/// Words in the upper left corner of a rectangle: whole, or cut where they end; nothing if hardly a word fits.
fn fitting(rect: &Rect, size: f64, words: &str) -> Option<String> {
    let letters = ((rect.width - 6.0) / (size * LETTER)).floor().max(0.0) as usize;
    if rect.height < size + 4.0 || letters < 4 {
        return None;
    }
    let short = shortened(words, letters);
    Some(text(rect.x + 4.0, rect.y + size + 1.0, size, &short))
}

fn shortened(words: &str, letters: usize) -> String {
    if words.chars().count() <= letters {
        return words.to_owned();
    }
    let mut short: String = words.chars().take(letters.saturating_sub(1)).collect();
    let _written = write!(short, "…");
    short
}

#[cfg(test)]
mod tests;
