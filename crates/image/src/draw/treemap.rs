//! Rectangles of given areas in a rectangle, as square as can be: Bruls, Huizing and van Wijk's squarified treemap.

/// A rectangle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rect {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// For each size that is not 0 its place in the list and its rectangle, the largest first.
pub(super) fn squarify(sizes: &[u64], area: Rect) -> Vec<(usize, Rect)> {
    let total: u64 = sizes.iter().sum();
    let mut order: Vec<usize> = (0..sizes.len()).filter(|&i| sizes[i] > 0).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(sizes[i]), i));
    if total == 0 || area.width <= 0.0 || area.height <= 0.0 {
        return Vec::new();
    }
    let scale = area.width * area.height / total as f64;
    let areas: Vec<f64> = order.iter().map(|&i| sizes[i] as f64 * scale).collect();
    let mut out = Vec::with_capacity(order.len());
    let mut free = area;
    let mut next = 0;
    while next < areas.len() {
        let side = free.width.min(free.height);
        let mut end = next + 1;
        while end < areas.len() && worst(&areas[next..=end], side) <= worst(&areas[next..end], side)
        {
            end += 1;
        }
        let (row, rest) = lay(&areas[next..end], free);
        out.extend(order[next..end].iter().copied().zip(row));
        free = rest;
        next = end;
    }
    out
}

/// The worst ratio of sides in a row along `side`.
fn worst(row: &[f64], side: f64) -> f64 {
    let sum: f64 = row.iter().sum();
    let thick = sum / side;
    row.iter().fold(0.0, |worst: f64, area| {
        let long = area / thick;
        worst.max(long / thick).max(thick / long)
    })
}

/// A row along the shorter side, and what it leaves free.
fn lay(row: &[f64], free: Rect) -> (Vec<Rect>, Rect) {
    let sum: f64 = row.iter().sum();
    let upright = free.width >= free.height;
    let thick = sum / free.width.min(free.height);
    let mut along = 0.0;
    let rects = row.iter().map(|area| {
        let long = area / thick;
        let begin = along;
        along += long;
        match upright {
            true => Rect {
                x: free.x,
                y: free.y + begin,
                width: thick,
                height: long,
            },
            false => Rect {
                x: free.x + begin,
                y: free.y,
                width: long,
                height: thick,
            },
        }
    });
    let rects = rects.collect();
    let rest = match upright {
        true => Rect {
            x: free.x + thick,
            width: (free.width - thick).max(0.0),
            ..free
        },
        false => Rect {
            y: free.y + thick,
            height: (free.height - thick).max(0.0),
            ..free
        },
    };
    (rects, rest)
}
