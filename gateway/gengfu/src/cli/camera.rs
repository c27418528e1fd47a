//! `gengfu camera`: for the person who sets a camera up.
//!
//! `accept`: a camera was turned on purpose, and its zones are drawn for the new view. `test`: what does it see, in which zones, and how does that
//! look. Owns what is printed, and that a picture is logged before it is handed out; refuses a picture of a camera that may give none.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use gengfu_contract::slug::Slug;

use super::evidence::who;
use crate::cameras::trial::{Seen, Trial, watch};
use crate::cameras::{views, worker_program};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config, parse_duration};
use crate::evidence::{Deed, Evidence, Look, LookLog};
use crate::settings::in_use_now;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Accept what the camera looks at now as its right view; it is learned within a minute or two.
    Accept(CameraArgs),
    /// Watch the camera for some seconds as the gateway would, and tell what it sees. 0 it streams; 1 something is wrong with it.
    Test {
        #[command(flatten)]
        camera: CameraArgs,
        /// A new file for a picture (JPEG): zones and all that is followed drawn and named, people blurred, masks burned in. Logged.
        #[arg(long, value_name = "FILE")]
        draw: Option<PathBuf>,
        /// Watch for so long from the first picture on.
        #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = time)]
        lasts: Duration,
        /// Look with another model of the manifest than the configuration names.
        #[arg(long, value_name = "NAME")]
        model: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct CameraArgs {
    /// The camera's name.
    camera: String,
    /// The gateway's configuration.
    #[arg(short, long, value_name = "FILE", default_value = super::DEFAULT_CONFIG, env = "GENGFU_CONFIG")]
    config: PathBuf,
}

fn time(text: &str) -> Result<Duration, String> {
    let span = parse_duration(text).filter(|span| (1..=600).contains(&span.as_secs()));
    span.ok_or_else(|| "write a time from 1s to 10m with its unit, as in \"20s\"".to_owned())
}

impl CameraArgs {
    /// The configuration and the camera in it.
    fn read(&self) -> anyhow::Result<(Config, config::Camera)> {
        let config = in_use_now(&self.config)?;
        let known = || config.cameras.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
        let name = Slug::new(self.camera.as_str()).ok();
        let camera = config.cameras.iter().find(|camera| Some(&camera.name) == name.as_ref()).cloned();
        let camera = camera.with_context(|| format!("no such camera; the configuration has: {}", known()))?;
        Ok((config, camera))
    }
}

pub(super) fn camera(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Accept(camera) => accept(camera),
        Verb::Test { camera, draw, lasts, model, json } => test(camera, draw.as_deref(), *lasts, model.as_ref(), *json),
    }
}

fn accept(args: &CameraArgs) -> anyhow::Result<ExitCode> {
    let (config, camera) = args.read()?;
    let data_dir = &config.gateway.data_dir;
    let was_known = views::accept(data_dir, &camera.name).with_context(|| {
        format!("remove the reference view in {}; run this as the gateway's user", data_dir.display())
    })?;
    eprintln!(
        "gengfu: {}",
        if was_known {
            "the view is accepted; the camera learns it anew"
        } else {
            "the camera is learning its view already"
        }
    );
    Ok(ExitCode::SUCCESS)
}

fn test(
    args: &CameraArgs,
    draw: Option<&Path>,
    lasts: Duration,
    model: Option<&String>,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let (config, mut camera) = args.read()?;
    camera.model = model.cloned().or(camera.model);
    if let Some(path) = draw {
        may_draw(&config, &camera, path)?;
    }
    let worker = crate::setup::worker_config(&config.vision, &camera)?;
    let program = worker_program()?;
    eprintln!("gengfu: watching {} for {} s", camera.name, lasts.as_secs());
    let (trial, picture) = super::block_on(watch(&program, worker, lasts, draw.is_some()))??;
    let mut out = std::io::stdout().lock();
    if as_json {
        serde_json::to_writer_pretty(&mut out, &trial)?;
        writeln!(out)?;
    } else {
        tell(&mut out, &trial)?;
    }
    if let (Some(path), Some(picture)) = (draw, picture) {
        let reason = Some("camera test".to_owned());
        let look =
            Look { at: SystemClock.now(), deed: Deed::Snapshot, who: who(), id: camera.name.to_string(), n: 1, reason };
        LookLog::at(Evidence::log_path(&config.gateway.data_dir))
            .add(&look)
            .context("log this look: no picture without it; run this as the gateway's user")?;
        let mut file = super::evidence::new_file(path)?;
        file.write_all(&picture.jpeg).with_context(|| format!("write {}", path.display()))?;
        eprintln!("gengfu: the picture is {}; people blurred: {}", path.display(), picture.people_blurred);
    }
    Ok(if trial.is_well() { ExitCode::SUCCESS } else { ExitCode::from(super::NO) })
}

/// Asked before anything runs, so that nobody waits for a refusal.
fn may_draw(config: &Config, camera: &config::Camera, path: &Path) -> anyhow::Result<()> {
    ensure!(camera.snapshots, "{} gives no picture of now (`snapshots = false`); test it without --draw", camera.name);
    ensure!(!path.exists(), "{} is there and is not overwritten; name a new file", path.display());
    let data_dir = &config.gateway.data_dir;
    ensure!(
        data_dir.is_dir(),
        "{} is not there, so this look could not be logged; start the gateway once, or test without --draw",
        data_dir.display()
    );
    Ok(())
}

fn tell(out: &mut impl Write, trial: &Trial) -> std::io::Result<()> {
    writeln!(out, "{}  {}", trial.camera, trial.source)?;
    writeln!(out, "  state     {}", trial.state)?;
    if !trial.remedy.is_empty() {
        writeln!(out, "  remedy    {}", trial.remedy)?;
    }
    writeln!(out, "  models    {}", trial.models.join(", "))?;
    let Trial { pictures, looked, detector_ms, memory_mib, .. } = trial;
    writeln!(
        out,
        "  pictures  {pictures}, looked at {looked}, {detector_ms:.0} ms for the last; {memory_mib} MiB of memory"
    )?;
    writeln!(out, "  sandbox   {}", trial.confinement)?;
    if trial.seen.is_empty() {
        writeln!(out, "  sees      nothing it knows")?;
    }
    for (n, Seen { kind, score, zones, still_s, .. }) in trial.seen.iter().enumerate() {
        let zones = if zones.is_empty() { String::new() } else { format!(" in {}", zones.join(", ")) };
        let still = still_s.map_or_else(String::new, |s| format!(", still for {s} s"));
        writeln!(out, "  {}{kind} {score:.2}{zones}{still}", if n == 0 { "sees      " } else { "          " })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_camera_is_told_with_its_remedy_and_is_no_success() {
        let seen = Seen {
            kind: "garbage",
            score: 0.614,
            zones: vec!["bins".to_owned()],
            still_s: Some(7),
            bbox: [0.1, 0.2, 0.3, 0.4],
        };
        let mut trial = Trial {
            camera: "cam-1".to_owned(),
            source: "rtsp://192.0.2.1/1".to_owned(),
            models: vec!["street".to_owned(), "litter".to_owned()],
            state: "streaming".to_owned(),
            remedy: String::new(),
            pictures: 20,
            looked: 9,
            detector_ms: 24.4,
            memory_mib: 61,
            confinement: "files and system calls confined".to_owned(),
            seen: vec![seen],
        };
        let text = |trial: &Trial| {
            let mut out = Vec::new();
            tell(&mut out, trial).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(trial.is_well());
        assert!(text(&trial).contains("sees      garbage 0.61 in bins, still for 7 s"), "{}", text(&trial));
        assert!(text(&trial).contains("models    street, litter"), "{}", text(&trial));
        (trial.state, trial.remedy, trial.seen) = ("too dark".to_owned(), "switch on its light".to_owned(), Vec::new());
        assert!(!trial.is_well());
        assert!(text(&trial).contains("remedy    switch on") && text(&trial).contains("nothing it knows"));
    }

    #[test]
    fn a_test_takes_a_second_to_ten_minutes() {
        assert_eq!(time("20s"), Ok(Duration::from_secs(20)));
        assert!(time("0s").is_err() && time("11m").is_err() && time("20").is_err());
    }
}
