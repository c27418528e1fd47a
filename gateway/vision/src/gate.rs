//! Is there anything for the detector to look at? Owns the comparison of a picture with the one the detector saw last, in and near
//! the zones; refuses to decide alone: things that are not settled, and time, open the gate as well ([`Gate::is_due`]).
//!
//! A street at night changes little for hours, and a detector call costs several times what decoding a key frame does. A thing that
//! comes, goes or moves changes the cells it covers by far more than a camera's noise and its encoder do. What the comparison
//! could miss (a grey car before a grey wall, in fog) is met by a look every [`FORCED_MS`].

use crate::geometry::BBox;
use crate::grey::{COLUMNS, GreyGrid, ROWS};
use crate::zone::{Zone, inside};

/// However quiet it is, the detector looks this often, ms of stream time.
pub const FORCED_MS: i64 = 10_000;
/// A cell changed when its mean brightness differs by more than this, of 255, after the whole picture's change of light.
const CELL_DIFFERS: i16 = 8;
/// So many changed cells open the gate: a single one is a leaf.
const CELLS_MIN: usize = 2;
/// How far around a zone changes count, in cells: a vehicle is taller than the ground it stands on.
const MARGIN_CELLS: usize = 4;
/// Share of the cells under a box that may have changed while the thing still stands as it stood.
const HELD_SHARE: f32 = 0.1;

/// The watch over one camera's picture.
#[derive(Debug, Clone)]
pub struct Gate {
    watched: Vec<bool>,
    /// What the detector saw last, and when.
    reference: Option<(GreyGrid, i64)>,
    /// Which cells differ from the reference; as of the last [`Gate::compare`].
    changed: Vec<bool>,
}

impl Gate {
    /// A gate for a camera with these zones. Without zones the whole picture is watched.
    #[must_use]
    pub fn new(zones: &[Zone]) -> Self {
        let inner: Vec<bool> = (0..COLUMNS * ROWS)
            .map(|place| {
                let (x, y) = ((place % COLUMNS) as f32 + 0.5, (place / COLUMNS) as f32 + 0.5);
                let point = [x / COLUMNS as f32, y / ROWS as f32].into();
                zones.is_empty() || zones.iter().any(|zone| inside(&zone.polygon, point))
            })
            .collect();
        let mut watched = inner.clone();
        // A zone thinner than a cell has no cell's middle in it, but its corners lie in some.
        for corner in zones.iter().flat_map(|zone| &zone.polygon) {
            watched[cell_of(corner.y, ROWS) * COLUMNS + cell_of(corner.x, COLUMNS)] = true;
        }
        let seeds: Vec<usize> = watched.iter().enumerate().filter(|(_, w)| **w).map(|(place, _)| place).collect();
        for place in seeds {
            let (x, y) = (place % COLUMNS, place / COLUMNS);
            for row in y.saturating_sub(MARGIN_CELLS)..=(y + MARGIN_CELLS).min(ROWS - 1) {
                let from = row * COLUMNS + x.saturating_sub(MARGIN_CELLS);
                let to = row * COLUMNS + (x + MARGIN_CELLS).min(COLUMNS - 1);
                watched[from..=to].fill(true);
            }
        }
        Self { watched, reference: None, changed: vec![true; COLUMNS * ROWS] }
    }

    /// Takes in a picture; returns whether it must be looked at for what is in it or for the time that has passed.
    pub fn is_due(&mut self, now_ms: i64, grid: &GreyGrid) -> bool {
        let Some((reference, looked_ms)) = &self.reference else { return true };
        let overdue = !(0..FORCED_MS).contains(&(now_ms - looked_ms));
        compare(reference, grid, &mut self.changed);
        let changed = self.changed.iter().zip(&self.watched).filter(|(changed, watched)| **changed && **watched);
        overdue || changed.count() >= CELLS_MIN
    }

    /// The detector looked at this picture.
    pub fn looked(&mut self, now_ms: i64, grid: GreyGrid) {
        self.reference = Some((grid, now_ms));
    }

    /// Does the box touch what is watched?
    #[must_use]
    pub fn watches(&self, bbox: &BBox) -> bool {
        cells_under(bbox).any(|place| self.watched[place])
    }

    /// Is the picture under the box as it was when the detector looked last? As of the last [`Gate::is_due`].
    #[must_use]
    pub fn unchanged_under(&self, bbox: &BBox) -> bool {
        let (mut all, mut changed) = (0_u32, 0_u32);
        for place in cells_under(bbox) {
            all += 1;
            changed += u32::from(self.changed[place]);
        }
        all > 0 && changed as f32 <= all as f32 * HELD_SHARE
    }
}

/// Marks the cells that differ by more than the whole picture does: clouds and dusk change all cells alike.
fn compare(reference: &GreyGrid, grid: &GreyGrid, changed: &mut [bool]) {
    let difference = |(a, b): (&u8, &u8)| i16::from(*b) - i16::from(*a);
    let pairs = || reference.cells().iter().zip(grid.cells());
    let mut counts = [0_u32; 511];
    for pair in pairs() {
        counts[usize::try_from(difference(pair) + 255).unwrap_or(0)] += 1;
    }
    let half = u32::try_from(COLUMNS * ROWS / 2).unwrap_or(u32::MAX);
    let mut below = 0;
    let median = (-255..=255_i16).zip(counts).find(|(_, count)| {
        below += count;
        below > half
    });
    let light = median.map_or(0, |(difference, _)| difference);
    for (changed, pair) in changed.iter_mut().zip(pairs()) {
        *changed = (difference(pair) - light).abs() > CELL_DIFFERS;
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the grid")]
fn cell_of(share: f32, count: usize) -> usize {
    ((share * count as f32).max(0.0) as usize).min(count - 1)
}

fn cells_under(bbox: &BBox) -> impl Iterator<Item = usize> + use<> {
    let (left, right) = (cell_of(bbox.x, COLUMNS), cell_of(bbox.x + bbox.w, COLUMNS));
    let (top, bottom) = (cell_of(bbox.y, ROWS), cell_of(bbox.y + bbox.h, ROWS));
    (top..=bottom).flat_map(move |row| (left..=right).map(move |column| row * COLUMNS + column))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Point;

    fn zone(corners: &[[f32; 2]]) -> Zone {
        Zone { id: "z".into(), polygon: corners.iter().copied().map(Point::from).collect() }
    }

    fn kerb() -> Zone {
        zone(&[[0.5, 0.5], [0.7, 0.5], [0.7, 0.6], [0.5, 0.6]])
    }

    /// A grey street with the noise of a camera and its encoder, and at will a box of another brightness.
    fn street(seed: u32, light: i16, thing: Option<(BBox, u8)>) -> GreyGrid {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let mut cells: Vec<u8> = (0..COLUMNS * ROWS)
            .map(|place| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let noise = i16::try_from((state >> 24) % 5).unwrap() - 2;
                let texture = i16::try_from(place % 37).unwrap();
                u8::try_from((90 + texture + noise + light).clamp(0, 255)).unwrap()
            })
            .collect();
        if let Some((bbox, value)) = thing {
            cells_under(&bbox).for_each(|place| cells[place] = value);
        }
        GreyGrid::from_cells(cells).unwrap()
    }

    #[test]
    fn noise_and_slow_light_leave_it_closed_and_time_opens_it() {
        let mut gate = Gate::new(&[kerb()]);
        assert!(gate.is_due(0, &street(0, 0, None)), "the first picture is always looked at");
        gate.looked(0, street(0, 0, None));
        for i in 1..5 {
            assert!(!gate.is_due(i * 2000, &street(u32::try_from(i).unwrap(), i16::try_from(i).unwrap() * 5, None)));
        }
        assert!(gate.is_due(FORCED_MS, &street(9, 0, None)));
        assert!(gate.is_due(-1, &street(9, 0, None)), "stream time that jumped back");
    }

    #[test]
    fn a_thing_in_or_near_the_zone_opens_it_and_one_elsewhere_does_not() {
        let car = |x: f32, y: f32| Some((BBox::from([x, y, 0.05, 0.05]), 30));
        let mut gate = Gate::new(&[kerb()]);
        gate.looked(0, street(0, 0, None));
        assert!(gate.is_due(2000, &street(1, 0, car(0.6, 0.52))));
        assert!(gate.is_due(2000, &street(2, 0, car(0.6, 0.42))), "the roof of what stands in the zone");
        assert!(!gate.is_due(2000, &street(3, 0, car(0.1, 0.1))));
        let mut whole = Gate::new(&[]);
        whole.looked(0, street(0, 0, None));
        assert!(whole.is_due(2000, &street(3, 0, car(0.1, 0.1))), "without zones everything is watched");
    }

    #[test]
    fn what_came_slowly_is_noticed_because_the_reference_stays() {
        let flat = |value: u8| {
            let mut cells = vec![100; COLUMNS * ROWS];
            cells_under(&BBox::from([0.6, 0.52, 0.05, 0.05])).for_each(|place| cells[place] = value);
            GreyGrid::from_cells(cells).unwrap()
        };
        let mut gate = Gate::new(&[kerb()]);
        gate.looked(0, flat(100));
        let due: Vec<bool> = (1..6_u8).map(|i| gate.is_due(i64::from(i) * 1000, &flat(100 + i * 4))).collect();
        assert_eq!(due, [false, false, true, true, true]);
    }

    #[test]
    fn a_box_is_unchanged_only_where_the_picture_is() {
        let mut gate = Gate::new(&[kerb()]);
        gate.looked(0, street(0, 0, None));
        let moved = BBox::from([0.6, 0.52, 0.05, 0.05]);
        gate.is_due(1000, &street(1, 0, Some((moved, 10))));
        assert!(!gate.unchanged_under(&moved) && gate.unchanged_under(&BBox::from([0.1, 0.1, 0.1, 0.1])));
        assert!(gate.watches(&moved) && !gate.watches(&BBox::from([0.1, 0.1, 0.1, 0.1])));
    }

    #[test]
    fn a_zone_thinner_than_a_cell_is_watched_and_boxes_outside_the_picture_do_no_harm() {
        let mut gate = Gate::new(&[zone(&[[0.2, 0.5], [0.9, 0.501], [0.9, 0.5015]])]);
        assert!(gate.watches(&BBox::from([0.19, 0.49, 0.02, 0.02])));
        assert!(!gate.watches(&BBox::from([-2.0, -2.0, 0.1, 0.1])));
        let outside = BBox::from([2.0; 4]);
        assert!(!gate.unchanged_under(&outside), "nothing is known before the first look");
        gate.looked(0, street(0, 0, None));
        gate.is_due(1000, &street(1, 0, None));
        assert!(gate.unchanged_under(&outside));
    }
}
