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

/// The share of `a` that lies inside `b`, 0 to 1.
pub(crate) fn share_inside(a: Bbox, b: Bbox) -> f32 {
    let side = |n: usize| ((a[n] + a[n + 2]).min(b[n] + b[n + 2]) - a[n].max(b[n])).max(0.0);
    let area = a[2] * a[3];
    if area > 0.0 { side(0) * side(1) / area } else { 0.0 }
}

/// The smallest box around both.
pub(crate) fn around(a: Bbox, b: Bbox) -> Bbox {
    let (x, y) = (a[0].min(b[0]), a[1].min(b[1]));
    let (right, bottom) = ((a[0] + a[2]).max(b[0] + b[2]), (a[1] + a[3]).max(b[1] + b[3]));
    [x, y, right - x, bottom - y]
}

/// True when two heaps lie so near each other that people call them one: no further apart than a quarter of the larger one.
pub(crate) fn touch(a: Bbox, b: Bbox) -> bool {
    let gap = |n: usize| a[n].max(b[n]) - (a[n] + a[n + 2]).min(b[n] + b[n + 2]);
    let reach = |n: usize| a[n + 2].max(b[n + 2]) / 4.0;
    gap(0) <= reach(0) && gap(1) <= reach(1)
}

/// True when the person at `person` can reach the thing at `thing`: about a step away (three quarters of a person's height to the
/// sides), with feet on about the same ground.
pub(crate) fn can_reach(person: Bbox, thing: Bbox) -> bool {
    let height = person[3];
    let aside = person[0].max(thing[0]) - (person[0] + person[2]).min(thing[0] + thing[2]);
    let (feet, top, ground) = (person[1] + person[3], thing[1], thing[1] + thing[3]);
    aside <= 0.75 * height && feet >= top - 0.25 * height && feet <= ground + 0.5 * height
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
    fn a_bag_beside_a_pile_touches_it_and_one_across_the_path_does_not() {
        let pile = [0.4, 0.6, 0.1, 0.08];
        assert!(touch(pile, [0.51, 0.62, 0.04, 0.05]) && touch([0.51, 0.62, 0.04, 0.05], pile));
        assert!(!touch(pile, [0.55, 0.62, 0.04, 0.05]), "half a pile away");
        let both = around(pile, [0.51, 0.62, 0.04, 0.05]);
        assert!((both[2] - 0.15).abs() < 1e-6 && (share_inside(pile, both) - 1.0).abs() < 1e-5);
        assert!((share_inside(both, pile) - 0.1 * 0.08 / (both[2] * both[3])).abs() < 1e-5);
    }

    #[test]
    fn who_stands_beside_a_bag_can_reach_it_and_who_walks_behind_cannot() {
        let bag = [0.5, 0.70, 0.04, 0.05];
        assert!(can_reach([0.45, 0.55, 0.05, 0.20], bag), "beside it");
        assert!(can_reach([0.50, 0.50, 0.05, 0.23], bag), "behind it, bending down");
        assert!(!can_reach([0.20, 0.55, 0.05, 0.20], bag), "further along the street");
        assert!(!can_reach([0.50, 0.30, 0.03, 0.12], bag), "on the other pavement");
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
