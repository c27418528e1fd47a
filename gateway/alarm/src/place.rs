//! Is this the same place? Owns the geometry of boxes in a picture (x, y, width, height; 0 to 1); refuses time and identity.

/// x and y of the top left corner, width, height.
pub(crate) type Bbox = [f32; 4];

/// True for a box that can be compared: finite, with an area.
pub(crate) fn is_usable([x, y, w, h]: Bbox) -> bool {
    x.is_finite() && y.is_finite() && w.is_finite() && h.is_finite() && w > 0.0 && h > 0.0
}

/// Intersection over union, 0 to 1.
pub(crate) fn overlap(a: Bbox, b: Bbox) -> f32 {
    let side = |n: usize| (a[n] + a[n + 2]).min(b[n] + b[n + 2]) - a[n].max(b[n]);
    let both = side(0).max(0.0) * side(1).max(0.0);
    let either = a[2] * a[3] + b[2] * b[3] - both;
    if either > 0.0 { both / either } else { 0.0 }
}

/// True when two boxes cover each other so well that two vehicles cannot.
pub(crate) fn is_same(a: Bbox, b: Bbox) -> bool {
    overlap(a, b) >= 0.5
}

/// True when something seen at `b` may be what stood at `a`: it covers it well, or is of like size with its centre
/// within half the size of `a` (a vehicle half hidden has a smaller box).
pub(crate) fn is_near(a: Bbox, b: Bbox) -> bool {
    let centre_off = |n: usize| ((a[n] + a[n + 2] / 2.0) - (b[n] + b[n + 2] / 2.0)).abs();
    let ratio = (b[2] * b[3]) / (a[2] * a[3]);
    is_same(a, b) || ((0.3..=3.0).contains(&ratio) && centre_off(0) <= a[2] / 2.0 && centre_off(1) <= a[3] / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAR: Bbox = [0.4, 0.4, 0.2, 0.1];

    #[test]
    fn overlap_is_one_for_the_same_box_and_nought_for_distant_ones() {
        assert!((overlap(CAR, CAR) - 1.0).abs() < 1e-6);
        assert!(overlap(CAR, [0.7, 0.4, 0.2, 0.1]).abs() < 1e-6);
        assert!((overlap(CAR, [0.4, 0.4, 0.1, 0.1]) - 0.5).abs() < 1e-5);
    }

    #[test]
    fn a_half_hidden_or_wavering_vehicle_is_near_and_its_neighbour_is_not() {
        assert!(is_near(CAR, [0.4, 0.4, 0.1, 0.09]), "half hidden");
        assert!(is_near(CAR, [0.41, 0.39, 0.2, 0.11]), "wavering");
        assert!(!is_near(CAR, [0.58, 0.42, 0.2, 0.1]), "parked beside it");
        assert!(!is_near(CAR, [0.3, 0.2, 0.5, 0.5]), "a bus before it");
    }

    #[test]
    fn boxes_that_cannot_be_compared_are_not_usable() {
        for bad in
            [[f32::NAN, 0.0, 0.1, 0.1], [0.0, 0.0, 0.0, 0.1], [0.0, 0.0, 0.1, -0.1], [0.0, 0.0, f32::INFINITY, 1.0]]
        {
            assert!(!is_usable(bad), "{bad:?}");
        }
        assert!(is_usable(CAR));
    }
}
