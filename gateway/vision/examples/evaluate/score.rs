//! Average precision by the COCO rules (Lin et al., arXiv 1405.0312; pycocotools' `COCOeval` for boxes, all sizes, at most 100 boxes a
//! picture and class). Owns the matching and the curve; refuses pictures and models: boxes come in, figures go out.

use gengfu_vision::detect::{Detection, Kind};
use gengfu_vision::geometry::BBox;

/// Most boxes of a class that count in one picture.
const BOXES_MAX: usize = 100;
/// Points of the recall axis.
const RECALL_POINTS: u32 = 100;

/// A thing a person drew a box around.
#[derive(Debug, Clone, Copy)]
pub struct Labelled {
    /// What it is.
    pub kind: Kind,
    /// Where, as shares of the picture.
    pub bbox: BBox,
    /// A box around many of them: what is found in it is neither right nor wrong.
    pub is_crowd: bool,
}

/// One picture: what is in it, and what was found.
#[derive(Debug, Default)]
pub struct Judged {
    /// By people.
    pub truth: Vec<Labelled>,
    /// By the detector.
    pub found: Vec<Detection>,
}

/// Average precision of one class: the mean over IoU 0.50 to 0.95, and that at 0.50; `None` where the class does not occur.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// The class.
    pub kind: Kind,
    /// Mean over ten thresholds, and the one at 0.50.
    pub ap_ap50: Option<(f64, f64)>,
}

/// Figures of each class.
pub fn figures(pictures: &[Judged], kinds: &[Kind]) -> Vec<Figures> {
    let of = |kind: Kind| {
        let at = |step: u32| average_precision(pictures, kind, 0.5 + 0.05 * f64::from(step));
        let all: Option<Vec<f64>> = (0..10).map(at).collect();
        all.map(|all| (all.iter().sum::<f64>() / all.len() as f64, all[0]))
    };
    kinds.iter().map(|&kind| Figures { kind, ap_ap50: of(kind) }).collect()
}

/// Mean AP and mean AP50 over the classes that occur.
pub fn means(figures: &[Figures]) -> (f64, f64) {
    let all: Vec<(f64, f64)> = figures.iter().filter_map(|one| one.ap_ap50).collect();
    let mean = |pick: fn(&(f64, f64)) -> f64| all.iter().map(pick).sum::<f64>() / all.len().max(1) as f64;
    (mean(|one| one.0), mean(|one| one.1))
}

/// One detection that counts: its score, and whether it is right.
type Verdict = (f32, bool);

fn average_precision(pictures: &[Judged], kind: Kind, iou_min: f64) -> Option<f64> {
    let mut verdicts: Vec<Verdict> = Vec::new();
    let mut wanted = 0_u32;
    for picture in pictures {
        wanted += judge(picture, kind, iou_min, &mut verdicts);
    }
    if wanted == 0 {
        return None;
    }
    verdicts.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut right, mut curve) = (0_u32, Vec::with_capacity(verdicts.len()));
    for (count, (_, is_right)) in (1_u32..).zip(&verdicts) {
        right += u32::from(*is_right);
        curve.push((f64::from(right) / f64::from(wanted), f64::from(right) / f64::from(count)));
    }
    // Precision never rises with recall: from the far end, the best so far.
    for place in (1..curve.len()).rev() {
        curve[place - 1].1 = curve[place - 1].1.max(curve[place].1);
    }
    let precision_at = |point: u32| {
        let recall = f64::from(point) / f64::from(RECALL_POINTS);
        let place = curve.partition_point(|(reached, _)| *reached < recall);
        curve.get(place).map_or(0.0, |(_, precision)| *precision)
    };
    Some((0..=RECALL_POINTS).map(precision_at).sum::<f64>() / f64::from(RECALL_POINTS + 1))
}

/// Adds the verdicts on one picture's boxes; returns how many there were to be found.
fn judge(picture: &Judged, kind: Kind, iou_min: f64, verdicts: &mut Vec<Verdict>) -> u32 {
    let truth: Vec<&Labelled> = picture.truth.iter().filter(|one| one.kind == kind).collect();
    let mut found: Vec<&Detection> = picture.found.iter().filter(|one| one.kind == kind).collect();
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut taken = vec![false; truth.len()];
    for detection in found.into_iter().take(BOXES_MAX) {
        let free = truth.iter().enumerate().filter(|(place, one)| !one.is_crowd && !taken[*place]);
        let near = free.map(|(place, one)| (place, f64::from(one.bbox.iou(&detection.bbox))));
        let best = near.filter(|(_, iou)| *iou >= iou_min).max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((place, _)) = best {
            taken[place] = true;
            verdicts.push((detection.score, true));
            continue;
        }
        let in_crowd = |one: &&&Labelled| one.is_crowd && f64::from(detection.bbox.share_inside(&one.bbox)) >= iou_min;
        if truth.iter().find(in_crowd).is_none() {
            verdicts.push((detection.score, false));
        }
    }
    u32::try_from(truth.iter().filter(|one| !one.is_crowd).count()).unwrap_or(u32::MAX)
}

/// Precision and recall of a class at a score, IoU 0.5.
pub fn precision_recall(pictures: &[Judged], kind: Kind, score_min: f32) -> (f64, f64) {
    let (mut verdicts, mut wanted) = (Vec::new(), 0_u32);
    for picture in pictures {
        wanted += judge(picture, kind, 0.5, &mut verdicts);
    }
    let told = || verdicts.iter().filter(|(score, _)| *score >= score_min);
    let right = told().filter(|(_, is_right)| *is_right).count() as f64;
    (right / (told().count().max(1) as f64), right / f64::from(wanted.max(1)))
}
