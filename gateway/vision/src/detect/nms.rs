//! Suppression of doubles. Owns the rule by which two boxes are one thing, within each class or across classes; refuses to mix
//! groups: a person at the open boot of a car, or on a bicycle, is not a double of it. Only litter and bins are one where their boxes are
//! practically the same: a heap of bags on a bin is called by either name.

use super::{Detection, Group};
use crate::geometry::BBox;
use crate::manifest::NmsScope;

/// A box that lies inside another by this share, and stands on the same ground, is the same vehicle: vehicles at one distance
/// from the camera stand beside each other, not behind each other.
const NESTED_SHARE: f32 = 0.7;
/// "The same ground": lower edges differ by at most this share of the lower box's height.
const SAME_GROUND: f32 = 0.2;
/// The inner, tighter box wins a nesting if its score is at least this share of the outer one's.
const INNER_WORTH: f32 = 0.5;

/// Overlap above which a box called litter and one called a bin are the same heap.
const SAME_HEAP: f32 = 0.7;

/// Removes doubles and sorts by score, highest first.
///
/// Within each class ([`NmsScope::PerClass`]) the usual greedy rule by IoU applies and nothing else: every opinion of the model on a place
/// is told, as published figures count them. Across classes ([`NmsScope::AcrossClasses`]) each thing is told once:
///
/// Within a group (class-agnostic: a van is often "car" and "truck" at once) the usual greedy rule by IoU applies. For
/// vehicles there is one more: of two nested boxes with a common lower edge only one can be real, because only one vehicle
/// can stand on that ground; the outer box then usually swallowed a wall or a kiosk behind the vehicle, so the inner one is kept
/// unless its score is much lower.
pub fn suppress(detections: &mut Vec<Detection>, scope: NmsScope, iou_max: f32) {
    detections.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Detection> = Vec::with_capacity(detections.len().min(64));
    for candidate in detections.drain(..) {
        let group = candidate.kind.group();
        let same = |k: &&mut Detection| k.kind.group() == group;
        if kept.iter().any(|k| is_double(k, &candidate, scope, iou_max)) {
            continue;
        }
        let may_nest = scope == NmsScope::AcrossClasses && group == Group::Vehicle;
        let nested = kept.iter_mut().filter(same).find(|k| may_nest && nested(&k.bbox, &candidate.bbox));
        match nested {
            None => kept.push(candidate),
            Some(k) if candidate.bbox.area() < k.bbox.area() && candidate.score >= INNER_WORTH * k.score => {
                *k = candidate
            }
            Some(_) => {}
        }
    }
    kept.sort_by(|a, b| b.score.total_cmp(&a.score));
    *detections = kept;
}

fn is_double(kept: &Detection, candidate: &Detection, scope: NmsScope, iou_max: f32) -> bool {
    if scope == NmsScope::PerClass {
        return kept.kind == candidate.kind && kept.bbox.iou(&candidate.bbox) > iou_max;
    }
    let (a, b) = (kept.kind.group(), candidate.kind.group());
    let is_heap = |group| matches!(group, Group::Litter | Group::Bin);
    let limit = match (a == b, is_heap(a) && is_heap(b)) {
        (true, _) => iou_max,
        (false, true) => iou_max.max(SAME_HEAP),
        (false, false) => return false,
    };
    kept.bbox.iou(&candidate.bbox) > limit
}

/// Are the boxes one inside the other with a common lower edge, so that as vehicles they can only be one?
pub(crate) fn nested(a: &BBox, b: &BBox) -> bool {
    let (inner, outer) = if a.area() < b.area() { (a, b) } else { (b, a) };
    let gap = ((inner.y + inner.h) - (outer.y + outer.h)).abs();
    inner.share_inside(outer) >= NESTED_SHARE && gap <= SAME_GROUND * inner.h
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Kind;
    use crate::manifest::NmsScope::{AcrossClasses, PerClass};
    use proptest::prelude::*;

    fn seen(kind: Kind, score: f32, bbox: [f32; 4]) -> Detection {
        Detection { kind, score, bbox: BBox::from(bbox) }
    }

    #[test]
    fn a_van_seen_as_car_and_truck_is_one_thing() {
        let mut list = vec![seen(Kind::Car, 0.5, [0.1, 0.1, 0.2, 0.2]), seen(Kind::Truck, 0.7, [0.11, 0.1, 0.2, 0.2])];
        suppress(&mut list, AcrossClasses, 0.45);
        assert_eq!(list, [seen(Kind::Truck, 0.7, [0.11, 0.1, 0.2, 0.2])]);
    }

    #[test]
    fn a_person_before_a_car_stays() {
        let mut list = vec![seen(Kind::Car, 0.5, [0.1, 0.1, 0.2, 0.2]), seen(Kind::Person, 0.7, [0.1, 0.1, 0.2, 0.2])];
        suppress(&mut list, AcrossClasses, 0.45);
        assert_eq!(list.len(), 2);
    }

    #[test]
    fn a_heap_called_litter_and_overflow_is_one_and_a_bag_before_a_bin_is_not_the_bin() {
        let heap = [0.4, 0.4, 0.1, 0.1];
        let mut list = vec![seen(Kind::Garbage, 0.5, heap), seen(Kind::Overflow, 0.7, [0.4, 0.405, 0.1, 0.1])];
        suppress(&mut list, AcrossClasses, 0.45);
        assert_eq!(list, [seen(Kind::Overflow, 0.7, [0.4, 0.405, 0.1, 0.1])]);
        let mut list = vec![seen(Kind::GarbageBin, 0.8, heap), seen(Kind::Overflow, 0.5, [0.41, 0.4, 0.1, 0.1])];
        suppress(&mut list, AcrossClasses, 0.45);
        assert_eq!(list.len(), 1, "a bin is full or it is not");
        let mut list = vec![seen(Kind::GarbageBin, 0.8, heap), seen(Kind::Garbage, 0.5, [0.42, 0.43, 0.08, 0.07])];
        suppress(&mut list, AcrossClasses, 0.45);
        assert_eq!(list.len(), 2);
    }

    #[test]
    fn within_each_class_every_opinion_on_a_place_is_told_once() {
        let bin = [0.4, 0.4, 0.1, 0.2];
        let all = vec![
            seen(Kind::GarbageBin, 0.8, bin),
            seen(Kind::Overflow, 0.6, bin),
            seen(Kind::Overflow, 0.5, [0.41, 0.4, 0.1, 0.2]),
            seen(Kind::Garbage, 0.4, [0.45, 0.5, 0.1, 0.2]),
        ];
        let mut list = all.clone();
        suppress(&mut list, PerClass, 0.5);
        assert_eq!(list, [all[0], all[1], all[3]]);
        let (kiosk, car) = ([0.42, 0.22, 0.16, 0.37], [0.425, 0.42, 0.10, 0.16]);
        let mut list = vec![seen(Kind::Bus, 0.55, kiosk), seen(Kind::Car, 0.5, car)];
        suppress(&mut list, PerClass, 0.5);
        assert_eq!(list.len(), 2, "what stands on what ground is no question within a class");
    }

    #[test]
    fn of_nested_boxes_on_the_same_ground_the_tight_one_stays() {
        let (kiosk, car) = ([0.42, 0.22, 0.16, 0.37], [0.425, 0.42, 0.10, 0.16]);
        let mut list = vec![seen(Kind::Bus, 0.55, kiosk), seen(Kind::Car, 0.5, car)];
        suppress(&mut list, AcrossClasses, 0.45);
        assert_eq!(list, [seen(Kind::Car, 0.5, car)]);
        let mut list = vec![seen(Kind::Bus, 0.9, kiosk), seen(Kind::Car, 0.2, car)];
        suppress(&mut list, AcrossClasses, 0.45);
        assert_eq!(list, [seen(Kind::Bus, 0.9, kiosk)], "a faint inner box does not displace a clear outer one");
    }

    #[test]
    fn a_car_before_a_bus_on_other_ground_stays() {
        let mut list = vec![seen(Kind::Bus, 0.8, [0.3, 0.1, 0.4, 0.5]), seen(Kind::Car, 0.6, [0.4, 0.2, 0.1, 0.1])];
        suppress(&mut list, AcrossClasses, 0.45);
        assert_eq!(list.len(), 2);
    }

    proptest! {
        #[test]
        fn suppression_never_invents_and_never_loses_the_last_box(raw in prop::collection::vec((0..Kind::ALL.len(), 0.0..1.0_f32, 0.0..0.8_f32, 0.0..0.8_f32, 0.01..0.4_f32, 0.01..0.4_f32), 0..40)) {
            let all: Vec<_> = raw.iter().map(|&(k, s, x, y, w, h)| seen(Kind::ALL[k], s, [x, y, w, h])).collect();
            for scope in [AcrossClasses, PerClass] {
                let mut list = all.clone();
                suppress(&mut list, scope, 0.45);
                for (i, a) in list.iter().enumerate() {
                    prop_assert!(all.contains(a));
                    prop_assert!(i == 0 || list[i - 1].score >= a.score);
                }
                prop_assert_eq!(list.is_empty(), all.is_empty());
            }
        }
    }
}
