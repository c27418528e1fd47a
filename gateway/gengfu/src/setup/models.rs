//! Which models look at a camera's pictures.
//!
//! Owns the choice: what the configuration names, and beyond it what the camera's zones are about. Every camera has a model that knows people, who
//! must be blurred; one with a zone about waste has a second one where the first knows nothing of it, and one without such a zone does
//! not pay for it. Refuses zones about what no model knows: they would never say anything.

use std::path::Path;

use anyhow::Context;
use gengfu_alarm::observation::TrackKind;
use gengfu_vision::detect::{Kind, ModelConfig};
use gengfu_vision::manifest::{Manifest, ModelEntry};

use crate::cameras;
use crate::config;

/// The models of one camera.
#[derive(Debug)]
pub(super) struct Models {
    /// Knows people.
    pub first: ModelConfig,
    /// Beside it on the same pictures.
    pub second: Option<ModelConfig>,
}

/// The models of a camera, the one that knows people first.
///
/// # Errors
/// A manifest that cannot be used, a name that is not in it, or a zone about what no model knows.
pub(super) fn of_camera(vision: &config::Vision, camera: &config::Camera) -> anyhow::Result<Models> {
    let manifest = Manifest::load(&vision.manifest)?;
    let (first, second) = choose(&manifest, vision, camera)?;
    let entries: Vec<&ModelEntry> = std::iter::once(first).chain(second).collect();
    check(camera, &entries)?;
    // The one that knows people goes first: it blurs them.
    let (first, second) = match second {
        Some(second) if !first.knows(Kind::Person) => (second, Some(first)),
        second => (first, second),
    };
    let config = |entry: &ModelEntry| ModelConfig {
        path: vision.models_dir.join(&entry.file),
        entry: entry.clone(),
        runtime: vision.onnxruntime.clone(),
        threads: usize::from(vision.threads),
    };
    Ok(Models { first: config(first), second: second.map(config) })
}

fn choose<'m>(
    manifest: &'m Manifest,
    vision: &config::Vision,
    camera: &config::Camera,
) -> anyhow::Result<(&'m ModelEntry, Option<&'m ModelEntry>)> {
    let named = |name: &String| named(manifest, &vision.manifest, camera, name);
    let first = named(camera.model.as_ref().unwrap_or(&vision.model))?;
    if let Some(name) = &camera.second_model {
        return Ok((first, Some(named(name)?)));
    }
    if let Some(second) = vision.second_model.as_ref().map(named).transpose()? {
        // It is there for all cameras, and each pays only for what its zones need.
        let classes = camera.zones.iter().flat_map(|zone| &zone.rule.classes).map(|class| cameras::kind(*class));
        let mut missing = classes.chain([Kind::Person]).filter(|kind| !first.knows(*kind));
        return Ok((first, missing.any(|kind| second.knows(kind)).then_some(second)));
    }
    if serves(camera, &[first]) {
        return Ok((first, None));
    }
    Ok((first, manifest.models.iter().find(|second| serves(camera, &[first, second]))))
}

fn named<'m>(
    manifest: &'m Manifest,
    path: &Path,
    camera: &config::Camera,
    name: &str,
) -> anyhow::Result<&'m ModelEntry> {
    manifest.model(name).with_context(|| {
        let known = manifest.models.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ");
        format!("camera {}: no model \"{name}\" in {}; it has: {known}", camera.name, path.display())
    })
}

/// Does one of these know people, and one of them something of each zone's?
fn serves(camera: &config::Camera, models: &[&ModelEntry]) -> bool {
    let knows = |kind: Kind| models.iter().any(|model| model.knows(kind));
    knows(Kind::Person) && camera.zones.iter().all(|zone| is_known(&zone.rule.classes, models))
}

fn is_known(classes: &[TrackKind], models: &[&ModelEntry]) -> bool {
    classes.iter().any(|class| models.iter().any(|model| model.knows(cameras::kind(*class))))
}

fn check(camera: &config::Camera, models: &[&ModelEntry]) -> anyhow::Result<()> {
    let names = || models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>().join(" and ");
    anyhow::ensure!(
        models.iter().any(|model| model.knows(Kind::Person)),
        "camera {}: {} does not know people, who must be blurred; name a model that does (`second_model`)",
        camera.name,
        names()
    );
    for zone in &camera.zones {
        anyhow::ensure!(
            is_known(&zone.rule.classes, models),
            "camera {}, zone {}: {} knows nothing of what it is about; name a model for it (`second_model`)",
            camera.name,
            zone.name,
            names()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

    /// The names of the models of a camera with zones of these kinds.
    fn chosen(vision: &str, camera: &str, zones: &[&str]) -> Result<(String, Option<String>), String> {
        let zones: String = zones
            .iter()
            .enumerate()
            .map(|(n, kind)| {
                format!(
                    "[[camera.zone]]\nname = \"z-{n}\"\nkind = \"{kind}\"\npolygon = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]]\n"
                )
            })
            .collect();
        let text = format!(
            "[gateway]\nsite = \"s\"\nname = \"g\"\ndata_dir = \"data\"\n[uplink]\nbroker = \"127.0.0.1:1883\"\n\
             [vision]\nmanifest = \"{ROOT}/models/manifest.toml\"\n{vision}\n\
             [[camera]]\nname = \"c\"\nurl = \"a.avi\"\n{camera}\n{zones}"
        );
        let config = Config::parse(&text, Path::new("/")).unwrap_or_else(|faults| panic!("{faults:?}\n{text}"));
        let models = of_camera(&config.vision, &config.cameras[0]).map_err(|error| error.to_string())?;
        Ok((models.first.entry.name, models.second.map(|second| second.entry.name)))
    }

    fn pair(first: &str, second: Option<&str>) -> Result<(String, Option<String>), String> {
        Ok((first.to_owned(), second.map(str::to_owned)))
    }

    #[test]
    fn a_zone_about_waste_brings_the_model_that_knows_it_and_other_cameras_do_not_pay_for_it() {
        assert_eq!(chosen("", "", &["no_stopping", "waste"]), pair("yolox_nano", Some("nanodet_litter")));
        assert_eq!(chosen("", "", &["no_stopping"]), pair("yolox_nano", None));
        assert_eq!(chosen("", "", &[]), pair("yolox_nano", None));
        let all = "second_model = \"nanodet_litter\"";
        assert_eq!(chosen(all, "", &["bin_overflow"]), pair("yolox_nano", Some("nanodet_litter")));
        assert_eq!(chosen(all, "", &["fire_lane_blocked"]), pair("yolox_nano", None));
        assert_eq!(
            chosen("", all, &["fire_lane_blocked"]),
            pair("yolox_nano", Some("nanodet_litter")),
            "as it was said"
        );
    }

    #[test]
    fn the_model_that_knows_people_goes_first_whatever_was_named() {
        let litter = "model = \"nanodet_litter\"";
        assert_eq!(chosen("", litter, &["litter"]), pair("yolox_nano", Some("nanodet_litter")));
        let street = "second_model = \"nanodet_street\"";
        assert_eq!(chosen(street, litter, &["litter"]), pair("nanodet_street", Some("nanodet_litter")));
        let both = "model = \"nanodet_litter\"\nsecond_model = \"nanodet_litter\"";
        assert!(chosen("", both, &["litter"]).unwrap_err().contains("does not know people"));
    }

    #[test]
    fn a_zone_about_what_no_named_model_knows_and_an_unknown_name_are_refused_with_a_remedy() {
        let error = chosen("second_model = \"nanodet_street\"", "", &["litter"]).unwrap_err();
        assert!(
            error.contains("camera c, zone z-0: yolox_nano knows nothing") && error.contains("second_model"),
            "{error}"
        );
        let error = chosen("", "model = \"best\"", &[]).unwrap_err();
        assert!(error.contains("no model \"best\"") && error.contains("nanodet_litter"), "{error}");
    }
}
