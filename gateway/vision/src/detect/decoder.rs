//! From a model's numbers to boxes. Owns the arithmetic of the two output formats; refuses to know about sessions or
//! pictures, so it is tested with numbers alone.

use super::{Detection, Kind};
use crate::geometry::BBox;
use crate::manifest::{Decoder, Label, ModelEntry};

/// Appends every candidate with at least `score_min` to `found`.
///
/// `values` is the output tensor, row after row; `region` is the size in input pixels that the whole picture took, from
/// the top left. Rows that hold no finite box are dropped: a broken model must not bring the tracker NaNs.
pub(super) fn decode(
    entry: &ModelEntry,
    values: &[f32],
    score_min: f32,
    region: (f32, f32),
    found: &mut Vec<Detection>,
) {
    let mut rows = values.chunks_exact(entry.output_columns());
    for &stride in entry.decoder.strides() {
        let (columns, lines) =
            ((entry.input.width as usize).div_ceil(stride), (entry.input.height as usize).div_ceil(stride));
        for line in 0..lines {
            for column in 0..columns {
                let Some(row) = rows.next() else { return };
                let cell = Cell { x: column as f32, y: line as f32, stride: stride as f32 };
                let candidate = match entry.decoder {
                    Decoder::Yolox => yolox(row, &entry.labels, score_min, cell),
                    Decoder::NanodetPlus => nanodet(row, entry.classes, &entry.labels, score_min, cell),
                };
                found.extend(candidate.and_then(|(kind, score, pixels)| normalised(kind, score, pixels, region)));
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Cell {
    x: f32,
    y: f32,
    stride: f32,
}

fn best(scores: &[f32], labels: &[Label]) -> Option<(Kind, f32)> {
    labels
        .iter()
        .filter_map(|label| scores.get(label.class).map(|&score| (label.kind, score)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
}

/// YOLOX: `[x, y, w, h, objectness, class scores…]`; centre = (value + cell) × stride, side = exp(value) × stride.
fn yolox(row: &[f32], labels: &[Label], score_min: f32, cell: Cell) -> Option<(Kind, f32, BBox)> {
    // Class scores are at most 1, so a cell below the threshold by objectness alone needs no further look.
    let objectness = row[4];
    if objectness < score_min {
        return None;
    }
    let (kind, class_score) = best(&row[5..], labels)?;
    let score = objectness * class_score;
    if score < score_min {
        return None;
    }
    let (cx, cy) = ((row[0] + cell.x) * cell.stride, (row[1] + cell.y) * cell.stride);
    Some((kind, score, BBox::from_centre(cx, cy, row[2].exp() * cell.stride, row[3].exp() * cell.stride)))
}

/// NanoDet-Plus: `[class scores…, 4 × 8 bins]`; each side's distance from the cell's point (cell × stride) is the expectation
/// of a softmax over its bins, in strides, in the order left, top, right, bottom.
fn nanodet(row: &[f32], classes: usize, labels: &[Label], score_min: f32, cell: Cell) -> Option<(Kind, f32, BBox)> {
    let (scores, bins) = row.split_at(classes);
    let (kind, score) = best(scores, labels)?;
    if score < score_min {
        return None;
    }
    let mut sides = [0.0; 4];
    for (side, bins) in sides.iter_mut().zip(bins.chunks_exact(8)) {
        *side = expectation(bins) * cell.stride;
    }
    let [left, top, right, bottom] = sides;
    let (x, y) = (cell.x * cell.stride, cell.y * cell.stride);
    Some((kind, score, BBox { x: x - left, y: y - top, w: left + right, h: top + bottom }))
}

fn expectation(bins: &[f32]) -> f32 {
    let max = bins.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut weighted, mut bin) = (0.0, 0.0, 0.0);
    for &value in bins {
        let weight = (value - max).exp();
        sum += weight;
        weighted += weight * bin;
        bin += 1.0;
    }
    weighted / sum
}

fn normalised(kind: Kind, score: f32, pixels: BBox, region: (f32, f32)) -> Option<Detection> {
    let bbox = BBox { x: pixels.x / region.0, y: pixels.y / region.1, w: pixels.w / region.0, h: pixels.h / region.1 };
    let finite = [score, bbox.x, bbox.y, bbox.w, bbox.h].iter().all(|v| v.is_finite());
    let bbox = finite.then(|| bbox.clamped())?;
    (bbox.w > 0.0 && bbox.h > 0.0).then_some(Detection { kind, score: score.min(1.0), bbox })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    fn entry(decoder: Decoder) -> ModelEntry {
        let mut entry = Manifest::parse(include_str!("../../../../models/manifest.toml")).unwrap().models.remove(0);
        entry.decoder = decoder;
        entry
    }

    fn decoded(entry: &ModelEntry, values: &[f32]) -> Vec<Detection> {
        let mut found = Vec::new();
        decode(entry, values, 0.3, (416.0, 312.0), &mut found);
        found
    }

    #[test]
    fn a_yolox_row_gives_its_cell_s_box() {
        let entry = entry(Decoder::Yolox);
        let mut values = vec![0.0; entry.output_rows() * 85];
        // Third cell of the second line of the 16 px grid: 52 × 52 rows lie before that grid.
        let row = 52 * 52 + 26 + 2;
        values[row * 85..row * 85 + 5].copy_from_slice(&[0.5, 0.25, 2.0_f32.ln(), 4.0_f32.ln(), 0.9]);
        values[row * 85 + 5 + 7] = 0.8;
        let found = decoded(&entry, &values);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].kind, Kind::Truck);
        assert!((found[0].score - 0.72).abs() < 1e-6);
        let centre = found[0].bbox.centre();
        // Height 64 px around y = 20 px is cut at the upper edge.
        assert!((centre.x - 40.0 / 416.0).abs() < 1e-5 && (found[0].bbox.w - 32.0 / 416.0).abs() < 1e-5);
        assert!(found[0].bbox.y == 0.0 && (found[0].bbox.h - 52.0 / 312.0).abs() < 1e-5);
    }

    #[test]
    fn a_nanodet_row_gives_the_expected_distances() {
        let entry = entry(Decoder::NanodetPlus);
        let mut values = vec![-10.0; entry.output_rows() * 112];
        let row = 52 * 10 + 20;
        values[row * 112..row * 112 + 80].fill(0.0);
        values[row * 112 + 2] = 0.6;
        for (side, bin) in [(0, 1), (1, 2), (2, 3), (3, 4)] {
            values[row * 112 + 80 + side * 8..][..8].fill(-50.0);
            values[row * 112 + 80 + side * 8 + bin] = 50.0;
        }
        let found = decoded(&entry, &values);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].kind, Kind::Car);
        let [x, y, w, h]: [f32; 4] = found[0].bbox.into();
        assert!((x - (160.0 - 8.0) / 416.0).abs() < 1e-5 && (w - 32.0 / 416.0).abs() < 1e-5, "{x} {w}");
        assert!((y - (80.0 - 16.0) / 312.0).abs() < 1e-5 && (h - 48.0 / 312.0).abs() < 1e-5, "{y} {h}");
    }

    #[test]
    fn numbers_that_are_not_numbers_and_short_outputs_give_nothing() {
        let entry = entry(Decoder::Yolox);
        assert!(decoded(&entry, &vec![f32::NAN; entry.output_rows() * 85]).is_empty());
        assert!(decoded(&entry, &vec![f32::INFINITY; entry.output_rows() * 85]).is_empty());
        assert!(decoded(&entry, &[]).is_empty());
        assert!(decoded(&entry, &[0.5; 84]).is_empty());
    }
}
