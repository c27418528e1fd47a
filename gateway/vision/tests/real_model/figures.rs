//! Goal: what the gateway's own detector finds on the validation pictures is what the model cards say. Method: every picture through
//! scaling, model, decoder and suppression of doubles as a camera's picture, judged by the COCO rules.

#[path = "../../examples/evaluate/folders.rs"]
mod folders;
#[path = "../../examples/evaluate/score.rs"]
#[allow(dead_code, reason = "the example tells more than these tests ask")]
mod score;

use folders::{LITTER, STREET};
use gengfu_vision::detect::{Detection, Kind, ModelConfig};
use gengfu_vision::geometry::BBox;
use score::{Judged, Labelled};

use crate::support::{self, Skip};

/// The bar for litter, mean over its three classes.
const LITTER_AP50_MIN: f64 = 0.88;
/// How far below its teacher the street model may be.
const STREET_LOSS_MAX: f64 = 0.01;

fn street_ap50(model: &ModelConfig) -> Result<f64, Skip> {
    let pictures = folders::street(support::shared("street/coco.json")?.parent().unwrap()).unwrap();
    Ok(score::means(&score::figures(&folders::detect(model, pictures).unwrap(), &STREET)).1)
}

pub fn litter() -> Result<(), Skip> {
    let model = support::own("nanodet_litter")?;
    let folder = support::shared_folder("litter/valid/images")?;
    let folder = folder.parent().unwrap();
    let judged = folders::detect(&model, folders::litter(folder).unwrap()).unwrap();
    let figures = score::figures(&judged, &LITTER);
    let (ap, ap50) = score::means(&figures);
    println!("litter: AP {ap:.4} AP50 {ap50:.4}, {figures:?}");
    assert!(judged.len() >= 300, "{} pictures", judged.len());
    assert!(ap50 >= LITTER_AP50_MIN, "AP50 {ap50:.4}: {figures:?}");
    Ok(())
}

pub fn street() -> Result<(), Skip> {
    let ours = support::own("nanodet_street")?;
    let mut teacher = support::nanodet(416, 416)?;
    // By the rule for doubles that our manifest gives ours, so that the rule is not what differs.
    (teacher.entry.nms, teacher.entry.nms_iou) = (ours.entry.nms, ours.entry.nms_iou);
    let (ours, teacher) = (street_ap50(&ours)?, street_ap50(&teacher)?);
    println!("street: AP50 {ours:.4}, its teacher {teacher:.4}");
    assert!(ours >= teacher - STREET_LOSS_MAX, "AP50 {ours:.4}, its teacher {teacher:.4}");
    Ok(())
}

/// The yardstick itself, on a case small enough to be reckoned by hand.
pub fn yardstick() -> Result<(), Skip> {
    let place = |n: f32| BBox::from([0.1 * n, 0.1, 0.08, 0.08]);
    let labelled = |n: f32, is_crowd| Labelled { kind: Kind::Garbage, bbox: place(n), is_crowd };
    let found = |score, n: f32| Detection { kind: Kind::Garbage, score, bbox: place(n) };
    let truth = vec![labelled(0.0, false), labelled(1.0, false), labelled(2.0, true)];
    // Right, wrong, right, in a crowd, twice the same.
    let found = vec![found(0.9, 0.0), found(0.8, 5.0), found(0.7, 1.0), found(0.6, 2.0), found(0.5, 1.0)];
    let figures = score::figures(&[Judged { truth, found }], &[Kind::Garbage, Kind::Overflow]);
    // Precision 1 up to recall 1/2 (51 points), then 2/3 (50 points).
    let wanted = (51.0 + 50.0 * 2.0 / 3.0) / 101.0;
    let (ap, ap50) = figures[0].ap_ap50.unwrap();
    assert!((ap50 - wanted).abs() < 1e-9 && (ap - wanted).abs() < 1e-9, "{ap} {ap50}, not {wanted}");
    assert!(figures[1].ap_ap50.is_none(), "what does not occur has no figure");
    assert!((score::means(&figures).1 - wanted).abs() < 1e-9);
    Ok(())
}
