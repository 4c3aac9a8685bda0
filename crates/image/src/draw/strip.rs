//! The heat strip: a line for each layer, a cell for each revision, filled where the layer changed.

use super::{Drawing, LETTER, MARGIN, Rect, WIDTH, colour, rectangle, shortened, text};

const ROW: f64 = 16.0;
const LABELS: f64 = 300.0;
/// Words behind the cells.
const WORDS: f64 = 180.0;
const CELL_MAX: f64 = 14.0;
const EMPTY: &str = "#eef1f4";

/// Of title and lines.
pub(super) fn height(drawing: &Drawing) -> f64 {
    match drawing.revisions {
        0 => ROW,
        _ => ROW * (drawing.layers.len() as f64 + 1.0),
    }
}

pub(super) fn lines(drawing: &Drawing, top: f64) -> Vec<String> {
    if drawing.revisions == 0 {
        let words = "Of the image's past nothing is known: the colours say what is expected.";
        return vec![text(MARGIN, top + 10.0, 11.0, words)];
    }
    let words = format!(
        "What changed in the last {} revisions, newest at the right:",
        drawing.revisions
    );
    let mut lines = vec![text(MARGIN, top, 12.0, &words)];
    let cell = ((WIDTH - 2.0 * MARGIN - LABELS - WORDS) / drawing.revisions as f64).min(CELL_MAX);
    let letters = (LABELS / (11.0 * LETTER)) as usize;
    for (row, layer) in drawing.layers.iter().enumerate() {
        let y = top + ROW * (row as f64 + 0.6);
        let label = format!("{}. {}", row + 1, layer.label);
        lines.push(text(MARGIN, y + 11.0, 11.0, &shortened(&label, letters)));
        lines.extend(layer.steps.iter().enumerate().map(|(step, changed)| {
            let rect = Rect {
                x: MARGIN + LABELS + cell * step as f64,
                y,
                width: cell * 0.9,
                height: ROW - 3.0,
            };
            let fill = if *changed { colour(1.0) } else { EMPTY };
            rectangle(&rect, fill, "none", 0.0)
        }));
        let x = MARGIN + LABELS + cell * drawing.revisions as f64 + 8.0;
        lines.push(text(x, y + 11.0, 11.0, &layer.frequency));
    }
    lines
}
