//! Zones: polygons in normalised picture coordinates that an installer draws over the street. Owns the test "does this
//! thing stand in this zone" and the check of a drawn polygon; refuses to know what a zone forbids.

use serde::{Deserialize, Serialize};

use crate::geometry::{BBox, Point, distance};

/// How far outside the drawn line the bottom centre of a box may lie and still count as inside, as a share of the
/// box's size, because a detector's lower edge wavers by a few per cent of the object (wheels, shadows).
pub const EDGE_TOLERANCE: f32 = 0.06;

/// A zone as configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// Name by which tracks refer to it.
    pub id: String,
    /// At least three corners, in order around the zone; closed by itself.
    pub polygon: Vec<Point>,
}

impl Zone {
    /// Does a thing with this box stand in the zone? Tested at the middle of the lower edge, with [`EDGE_TOLERANCE`].
    #[must_use]
    pub fn contains(&self, bbox: &BBox) -> bool {
        let foot = bbox.bottom_centre();
        inside(&self.polygon, foot) || distance_to_outline(&self.polygon, foot) <= EDGE_TOLERANCE * bbox.size()
    }
}

/// Is the point inside the polygon (even-odd rule)?
#[must_use]
pub fn inside(polygon: &[Point], p: Point) -> bool {
    let mut odd = false;
    for (a, b) in edges(polygon) {
        if (a.y > p.y) != (b.y > p.y) && p.x < (b.x - a.x) * (p.y - a.y) / (b.y - a.y) + a.x {
            odd = !odd;
        }
    }
    odd
}

/// The sides of a polygon, the closing one included.
pub fn edges(polygon: &[Point]) -> impl Iterator<Item = (Point, Point)> + '_ {
    polygon.iter().copied().zip(polygon.iter().copied().cycle().skip(1))
}

fn distance_to_outline(polygon: &[Point], p: Point) -> f32 {
    edges(polygon).map(|(a, b)| distance_to_segment(a, b, p)).fold(f32::INFINITY, f32::min)
}

fn distance_to_segment(a: Point, b: Point, p: Point) -> f32 {
    let (dx, dy) = (b.x - a.x, b.y - a.y);
    let length2 = dx * dx + dy * dy;
    let t = if length2 > 0.0 { (((p.x - a.x) * dx + (p.y - a.y) * dy) / length2).clamp(0.0, 1.0) } else { 0.0 };
    distance(Point { x: a.x + t * dx, y: a.y + t * dy }, p)
}

/// What is wrong with a drawn polygon, if anything: the text says what to change.
#[must_use]
pub fn polygon_fault(polygon: &[Point]) -> Option<String> {
    if polygon.len() < 3 {
        return Some(format!("has {} corners; draw at least 3", polygon.len()));
    }
    if polygon.len() > 64 {
        return Some(format!("has {} corners; draw at most 64", polygon.len()));
    }
    if let Some(p) = polygon.iter().find(|p| !(0.0..=1.0).contains(&p.x) || !(0.0..=1.0).contains(&p.y)) {
        return Some(format!("corner [{}, {}] lies outside the picture; use coordinates from 0 to 1", p.x, p.y));
    }
    let doubled: f32 = edges(polygon).map(|(a, b)| a.x * b.y - b.x * a.y).sum();
    if doubled.abs() < 2e-4 {
        return Some("covers less than 0.01 % of the picture; draw it larger, corners in order around it".to_owned());
    }
    if crosses_itself(polygon) {
        return Some("crosses itself; list the corners in order around the zone".to_owned());
    }
    None
}

fn crosses_itself(polygon: &[Point]) -> bool {
    let side = |a: Point, b: Point, p: Point| (b.x - a.x) * (p.y - a.y) - (b.y - a.y) * (p.x - a.x);
    let sides: Vec<_> = edges(polygon).collect();
    sides.iter().enumerate().any(|(i, &(a, b))| {
        sides
            .iter()
            .skip(i + 1)
            .any(|&(c, d)| side(a, b, c) * side(a, b, d) < 0.0 && side(c, d, a) * side(c, d, b) < 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(raw: &[[f32; 2]]) -> Vec<Point> {
        raw.iter().copied().map(Point::from).collect()
    }

    #[test]
    fn a_thing_is_in_a_zone_by_where_it_touches_the_ground() {
        let zone = Zone { id: "z".into(), polygon: points(&[[0.2, 0.5], [0.8, 0.5], [0.8, 0.9], [0.2, 0.9]]) };
        assert!(zone.contains(&BBox::from([0.4, 0.1, 0.2, 0.5])), "top outside, foot inside");
        assert!(!zone.contains(&BBox::from([0.4, 0.6, 0.2, 0.4])), "centre inside, foot outside");
        assert!(zone.contains(&BBox::from([0.4, 0.3, 0.2, 0.195])), "foot a hair above the line");
        assert!(!zone.contains(&BBox::from([0.4, 0.3, 0.2, 0.15])), "foot well above the line");
    }

    #[test]
    fn concave_zones_keep_their_notch_outside() {
        let u =
            points(&[[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.6, 0.9], [0.6, 0.4], [0.4, 0.4], [0.4, 0.9], [0.1, 0.9]]);
        assert!(inside(&u, Point { x: 0.2, y: 0.8 }));
        assert!(!inside(&u, Point { x: 0.5, y: 0.8 }));
        assert!(polygon_fault(&u).is_none());
    }

    #[test]
    fn drawing_faults_are_told_with_a_remedy() {
        let fault = |raw: &[[f32; 2]]| polygon_fault(&points(raw)).unwrap_or_default();
        assert!(fault(&[[0.1, 0.1], [0.2, 0.2]]).contains("at least 3"));
        assert!(fault(&[[0.1, 0.1], [1.2, 0.2], [0.3, 0.9]]).contains("outside the picture"));
        assert!(fault(&[[0.1, 0.1], [f32::NAN, 0.2], [0.3, 0.9]]).contains("outside the picture"));
        assert!(fault(&[[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]]).contains("larger"));
        assert!(fault(&[[0.1, 0.1], [0.9, 0.7], [0.9, 0.1], [0.1, 0.9]]).contains("crosses itself"));
    }
}
