//! Goal: cameras that share a worker share a detector and nothing else. Method: real processes with several cameras, one of them bad.

use std::collections::BTreeMap;
use std::process::Command;

use gengfu_vision::protocol::{CameraState, ErrorKind, ParentMessage, StillOutcome, WorkerConfig, WorkerMessage};
use gengfu_vision::thrift::Effort;

use crate::support::{self, Skip, Worker};

/// Cameras on vtest.avi, in their own time.
fn cameras(names: &[&str], clip: &str) -> Result<Vec<WorkerConfig>, Skip> {
    let model = support::yolox()?;
    let camera = |name: &&str| {
        let mut config = support::config(clip, model.clone());
        (config.camera, config.paced, config.capture.looped) = ((*name).to_owned(), true, true);
        config.capture.fps_max = 2.0;
        config
    };
    Ok(names.iter().map(camera).collect())
}

pub fn three_cameras() -> Result<(), Skip> {
    let folder = tempfile::tempdir().unwrap();
    let clip = support::vtest(folder.path())?;
    let noise = folder.path().join("noise.avi");
    std::fs::write(&noise, [7_u8; 5000]).unwrap();
    let mut all = cameras(&["east", "bad", "west"], clip.to_str().unwrap())?;
    all[1].capture.url = gengfu_vision::source::SourceUrl::new(noise.to_str().unwrap());
    let mut worker = Worker::start_all(&all, folder.path());
    let (mut standing, mut beats, mut bad) = (BTreeMap::<String, usize>::new(), BTreeMap::<String, u32>::new(), None);
    let mut hello = None;
    while standing.values().filter(|&&count| count >= 2).count() < 2 || beats.len() < 3 || bad.is_none() {
        let line = worker.next_line();
        match (line.camera, line.message) {
            (Some(camera), WorkerMessage::Tracks(t)) => {
                let there = t.tracks.iter().filter(|t| t.stationary_since_ms.is_some() && !t.zones.is_empty()).count();
                let most = standing.entry(camera).or_default();
                *most = there.max(*most);
            }
            (Some(camera), WorkerMessage::State { state: CameraState::Error { fatal, .. }, .. }) => {
                assert!(camera == "bad" && !fatal);
                bad = Some(camera);
            }
            (Some(camera), WorkerMessage::Heartbeat(_)) => *beats.entry(camera).or_default() += 1,
            (None, WorkerMessage::Hello { confinement, .. }) => hello = Some(confinement),
            _ => {}
        }
    }
    assert!(!standing.contains_key("bad"), "{standing:?}");
    assert!(hello.is_some_and(|confinement| confinement.calls), "{hello:?}");
    worker.tell(&ParentMessage::Shutdown);
    worker.rest();
    assert_eq!(worker.wait().code(), Some(0));
    Ok(())
}

pub fn effort() -> Result<(), Skip> {
    let folder = tempfile::tempdir().unwrap();
    let clip = support::vtest(folder.path())?;
    let all = cameras(&["cam-test", "west"], clip.to_str().unwrap())?;
    let mut worker = Worker::start_all(&all, folder.path());
    worker.until(|m| matches!(m, WorkerMessage::Tracks(_)).then_some(()));
    let effort = Effort { key_frames_only: true, every_ms: 5000, first_after_ms: 0 };
    worker.tell(&ParentMessage::Effort { camera: "cam-test".to_owned(), effort });
    let (mut taken, mut west_began_ms) = (Vec::new(), None);
    loop {
        let line = worker.next_line();
        let WorkerMessage::Tracks(t) = line.message else { continue };
        match line.camera.as_deref() {
            Some("cam-test") => taken.push(t.pts_ms),
            _ if t.pts_ms - *west_began_ms.get_or_insert(t.pts_ms) > 12_000 => break,
            _ => {}
        }
    }
    // One or two may have been under way when it was told.
    assert!((1..=6).contains(&taken.len()), "a picture every five seconds: {taken:?}");
    let request = worker.ask_still(None);
    let outcome = worker.until(|m| match m {
        WorkerMessage::Still { request_id, outcome, .. } if request_id == request => Some(outcome),
        _ => None,
    });
    assert!(matches!(outcome, StillOutcome::Taken { .. }), "{outcome:?}");
    Ok(())
}

pub fn stuck() -> Result<(), Skip> {
    let folder = tempfile::tempdir().unwrap();
    let clip = support::vtest(folder.path())?;
    let mut all = cameras(&["east", "stuck"], clip.to_str().unwrap())?;
    // Opening a pipe that nobody writes to does not come back, and no library call can interrupt it.
    let pipe = folder.path().join("pipe.avi");
    if !Command::new("mkfifo").arg(&pipe).status().is_ok_and(|s| s.success()) {
        return Err("mkfifo is absent".to_owned());
    }
    all[1].capture.url = gengfu_vision::source::SourceUrl::new(pipe.to_str().unwrap());
    all[1].capture.silence_ms = 200;
    let mut worker = Worker::start_all(&all, folder.path());
    let named = loop {
        let line = worker.next_line();
        if let WorkerMessage::State { state: CameraState::Error { kind: ErrorKind::Stuck, fatal: true, .. }, .. } =
            line.message
        {
            break line.camera;
        }
    };
    assert_eq!(named.as_deref(), Some("stuck"));
    worker.rest();
    assert_eq!(worker.wait().code(), Some(2));
    Ok(())
}

pub fn faulty() -> Result<(), Skip> {
    let folder = tempfile::tempdir().unwrap();
    let mut all = cameras(&["east", "west", "north"], "unused.avi")?;
    all[1].capture.fps_max = 0.0;
    let mut worker = Worker::start_all(&all, folder.path());
    let line = worker.next_line();
    let WorkerMessage::State {
        state: CameraState::Error { kind: ErrorKind::Config, message, fatal: true, .. }, ..
    } = line.message
    else {
        panic!("{line:?}");
    };
    assert!(line.camera.as_deref() == Some("west") && message.contains("fps_max"), "{message}");
    assert_eq!(worker.wait().code(), Some(2));
    Ok(())
}
