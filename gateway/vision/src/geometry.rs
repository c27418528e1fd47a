//! Boxes and points in normalised picture coordinates: x to the right, y down, 0..1 over the whole picture. Owns the
//! arithmetic on them; refuses pixels, which belong to [`crate::picture`].

use serde::{Deserialize, Serialize};

/// A point; on the wire `[x, y]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f32; 2]", into = "[f32; 2]")]
pub struct Point {
    /// 0 at the left edge, 1 at the right.
    pub x: f32,
    /// 0 at the top edge, 1 at the bottom.
    pub y: f32,
}

impl From<[f32; 2]> for Point {
    fn from([x, y]: [f32; 2]) -> Self {
        Self { x, y }
    }
}

impl From<Point> for [f32; 2] {
    fn from(p: Point) -> Self {
        [p.x, p.y]
    }
}

/// An upright box; on the wire `[x, y, w, h]` with x, y the top left corner.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f32; 4]", into = "[f32; 4]")]
pub struct BBox {
    /// Left edge.
    pub x: f32,
    /// Top edge.
    pub y: f32,
    /// Width, never negative.
    pub w: f32,
    /// Height, never negative.
    pub h: f32,
}

impl From<[f32; 4]> for BBox {
    fn from([x, y, w, h]: [f32; 4]) -> Self {
        Self { x, y, w: w.max(0.0), h: h.max(0.0) }
    }
}

impl From<BBox> for [f32; 4] {
    fn from(b: BBox) -> Self {
        [b.x, b.y, b.w, b.h]
    }
}

impl BBox {
    /// A box from its centre and size.
    #[must_use]
    pub fn from_centre(cx: f32, cy: f32, w: f32, h: f32) -> Self {
        Self { x: cx - w / 2.0, y: cy - h / 2.0, w: w.max(0.0), h: h.max(0.0) }
    }

    /// The middle of the box.
    #[must_use]
    pub fn centre(&self) -> Point {
        Point { x: self.x + self.w / 2.0, y: self.y + self.h / 2.0 }
    }

    /// The middle of the lower edge: where the thing touches the ground, hence what zones are tested with.
    #[must_use]
    pub fn bottom_centre(&self) -> Point {
        Point { x: self.x + self.w / 2.0, y: self.y + self.h }
    }

    /// Area as a share of the picture.
    #[must_use]
    pub fn area(&self) -> f32 {
        self.w * self.h
    }

    /// Side of the square of the same area: the yardstick for "moved by how much of its own size".
    #[must_use]
    pub fn size(&self) -> f32 {
        self.area().sqrt()
    }

    /// Area shared with another box.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> f32 {
        let w = (self.x + self.w).min(other.x + other.w) - self.x.max(other.x);
        let h = (self.y + self.h).min(other.y + other.h) - self.y.max(other.y);
        w.max(0.0) * h.max(0.0)
    }

    /// Intersection over union, 0..1; 0 for two empty boxes.
    #[must_use]
    pub fn iou(&self, other: &Self) -> f32 {
        let shared = self.intersection(other);
        let union = self.area() + other.area() - shared;
        if union > 0.0 { shared / union } else { 0.0 }
    }

    /// The share of this box that lies inside `other`, 0..1.
    #[must_use]
    pub fn share_inside(&self, other: &Self) -> f32 {
        let area = self.area();
        if area > 0.0 { self.intersection(other) / area } else { 0.0 }
    }

    /// The part of the box inside the picture.
    #[must_use]
    pub fn clamped(&self) -> Self {
        let (x, y) = (self.x.clamp(0.0, 1.0), self.y.clamp(0.0, 1.0));
        let (right, bottom) = ((self.x + self.w).clamp(0.0, 1.0), (self.y + self.h).clamp(0.0, 1.0));
        Self { x, y, w: right - x, h: bottom - y }
    }

    /// The box moved by a distance.
    #[must_use]
    pub fn moved(&self, dx: f32, dy: f32) -> Self {
        Self { x: self.x + dx, y: self.y + dy, ..*self }
    }

    /// The box with every side moved outwards by `share` of the side's length.
    #[must_use]
    pub fn grown(&self, share: f32) -> Self {
        let (dx, dy) = (self.w * share, self.h * share);
        Self { x: self.x - dx, y: self.y - dy, w: self.w + 2.0 * dx, h: self.h + 2.0 * dy }
    }
}

/// Distance between two points in the same units.
#[must_use]
pub fn distance(a: Point, b: Point) -> f32 {
    (a.x - b.x).hypot(a.y - b.y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iou_of_equal_half_and_apart() {
        let a = BBox::from([0.0, 0.0, 0.2, 0.2]);
        assert!((a.iou(&a) - 1.0).abs() < 1e-6);
        assert!((a.iou(&a.moved(0.1, 0.0)) - 1.0 / 3.0).abs() < 1e-5);
        assert_eq!(a.iou(&a.moved(0.5, 0.5)), 0.0);
        assert_eq!(BBox::from([0.0; 4]).iou(&BBox::from([0.0; 4])), 0.0);
    }

    #[test]
    fn clamping_keeps_only_what_is_in_the_picture() {
        let b = BBox::from([-0.1, 0.9, 0.2, 0.3]).clamped();
        assert!((b.w - 0.1).abs() < 1e-6 && (b.h - 0.1).abs() < 1e-6 && b.x == 0.0);
        let outside = BBox::from([1.5, 1.5, 0.2, 0.2]).clamped();
        assert_eq!(outside.area(), 0.0);
    }
}
