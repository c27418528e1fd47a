//! Goal: the worker process keeps its protocol, whatever it is fed. Method: real processes over real pipes.

use std::io::Read;
use std::path::PathBuf;

use gengfu_vision::clock::Stopwatch;
use gengfu_vision::protocol::{CameraState, ErrorKind, ParentMessage, StillOutcome, TracksMessage, WorkerMessage};

use crate::support::{self, Skip, Worker};

fn state(message: WorkerMessage) -> Option<CameraState> {
    match message {
        WorkerMessage::State { state, .. } => Some(state),
        _ => None,
    }
}

pub fn deterministic() -> Result<(), Skip> {
    let folder = tempfile::tempdir().unwrap();
    let mut config = support::config(support::vtest(folder.path())?.to_str().unwrap(), support::yolox()?);
    config.capture.fps_max = 1.0;
    let run = || {
        let mut worker = Worker::start(&config);
        let mut tracks: Vec<TracksMessage> = Vec::new();
        let mut states = Vec::new();
        worker.until(|message| {
            match message {
                WorkerMessage::Tracks(t) => tracks.push(TracksMessage { inference_us: 0, decode_us: 0, ..t }),
                WorkerMessage::State { state, .. } => states.push(state),
                _ => {}
            }
            (states.last() == Some(&CameraState::Ended)).then_some(())
        });
        worker.tell(&ParentMessage::Shutdown);
        worker.rest();
        assert_eq!(worker.wait().code(), Some(0));
        assert_eq!(states, [CameraState::Connecting, CameraState::Streaming, CameraState::Ended]);
        tracks
    };
    let first = run();
    assert_eq!(first.len(), 80, "one picture a second, none lost");
    assert_eq!(first[10].at_ms, 1_700_000_010_000);
    assert_eq!(first, run());
    Ok(())
}

pub fn stills() -> Result<(), Skip> {
    let folder = tempfile::tempdir().unwrap();
    let mut config = support::config(support::vtest(folder.path())?.to_str().unwrap(), support::yolox()?);
    config.paced = true;
    let mut worker = Worker::start(&config);
    let van = worker.until(|m| match m {
        WorkerMessage::Tracks(t) => t.tracks.iter().find(|t| t.kind.as_str() == "truck").map(|t| t.id),
        _ => None,
    });
    let request = worker.ask_still(Some(van));
    let begun = Stopwatch::start();
    let outcome = worker.until(|m| match m {
        WorkerMessage::Still { request_id, outcome, .. } if request_id == request => Some(outcome),
        _ => None,
    });
    println!("answered in {} µs", begun.us());
    let StillOutcome::Taken { jpeg, sha256, width, height, people_blurred, track_found, .. } = outcome else {
        panic!("{outcome:?}")
    };
    let path = folder.path().join("judged.jpg");
    std::fs::write(&path, &jpeg.0).unwrap();
    let hash = std::process::Command::new("sha256sum").arg(&path).output().unwrap().stdout;
    assert!(String::from_utf8(hash).unwrap().starts_with(&sha256));
    let picture = image::load_from_memory_with_format(&jpeg.0, image::ImageFormat::Jpeg).unwrap();
    assert_eq!((picture.width(), picture.height()), (width, height));
    assert!(people_blurred >= 1 && track_found);
    worker.tell(&ParentMessage::Shutdown);
    worker.rest();
    assert_eq!(worker.wait().code(), Some(0));
    Ok(())
}

pub fn garbage() -> Result<(), Skip> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("garbage.mp4");
    let mut noise = vec![0_u8; 300_000];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    std::fs::write(&path, noise).unwrap();
    let mut worker = Worker::start(&support::config(path.to_str().unwrap(), support::yolox()?));
    let error = worker.until(|m| state(m).filter(|s| matches!(s, CameraState::Error { .. })));
    let CameraState::Error { kind, message, fatal, retry_in_ms } = error else { unreachable!("filtered above") };
    assert!(
        matches!(kind, ErrorKind::Open | ErrorKind::Corrupt | ErrorKind::NoVideo) && !fatal && retry_in_ms.is_some(),
        "{message}"
    );
    let request = worker.ask_still(None);
    let answered = worker.until(|m| match m {
        WorkerMessage::Still { request_id, outcome, .. } if request_id == request => Some(outcome),
        _ => None,
    });
    assert!(matches!(answered, StillOutcome::Failed { .. }), "{answered:?}");
    // A good file in its place: the camera recovers by itself.
    std::fs::copy(support::vtest(folder.path())?, &path).unwrap();
    worker.until(|m| state(m).filter(|s| *s == CameraState::Streaming));
    worker.tell(&ParentMessage::Shutdown);
    worker.rest();
    assert_eq!(worker.wait().code(), Some(0));
    Ok(())
}

pub fn fatal() -> Result<(), Skip> {
    let folder = tempfile::tempdir().unwrap();
    let clip = support::vtest(folder.path())?;
    let good = support::config(clip.to_str().unwrap(), support::yolox()?);
    let mut no_library = good.clone();
    no_library.model.runtime = PathBuf::from("/no/such/libonnxruntime.so");
    let mut no_model = good.clone();
    no_model.model.entry.sha256 = "0".repeat(64);
    let mut bad_config = good.clone();
    bad_config.capture.fps_max = 0.0;
    bad_config.zones[0].polygon.truncate(2);
    let cases = [
        (no_library, ErrorKind::Detector, vec!["ONNX Runtime was not found", "fetch-models.sh"]),
        (no_model, ErrorKind::Detector, vec!["SHA-256"]),
        (bad_config, ErrorKind::Config, vec!["capture.fps_max", "zones[0].polygon"]),
    ];
    for (config, expected, texts) in cases {
        let mut worker = Worker::start(&config);
        let last = worker.rest().into_iter().filter_map(state).next_back();
        let Some(CameraState::Error { kind, message, fatal, .. }) = last else { panic!("{last:?}") };
        assert!(kind == expected && fatal && texts.iter().all(|t| message.contains(t)), "{kind:?} {message}");
        assert_eq!(worker.wait().code(), Some(2));
    }
    Ok(())
}

pub fn orphan() -> Result<(), Skip> {
    let folder = tempfile::tempdir().unwrap();
    let mut config = support::config(support::vtest(folder.path())?.to_str().unwrap(), support::yolox()?);
    config.paced = true;
    config.capture.looped = true;
    let mut worker = Worker::start(&config);
    worker.until(|m| matches!(m, WorkerMessage::Tracks(_)).then_some(()));
    worker.close_input();
    worker.rest();
    assert_eq!(worker.wait().code(), Some(0));
    Ok(())
}

pub fn looped() -> Result<(), Skip> {
    let folder = tempfile::tempdir().unwrap();
    let clip = support::vtest(folder.path())?;
    // Two seconds of the clip, so that the loop's seam comes soon.
    let short = folder.path().join("short.avi");
    let cut = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-t", "2", "-i"])
        .arg(&clip)
        .args(["-c", "copy"])
        .arg(&short)
        .status();
    if !cut.is_ok_and(|s| s.success()) {
        return Err("the ffmpeg program is absent".to_owned());
    }
    let mut config = support::config(short.to_str().unwrap(), support::yolox()?);
    config.paced = true;
    config.capture.looped = true;
    let mut worker = Worker::start(&config);
    let mut last_pts_ms = -1;
    let mut ids = std::collections::BTreeSet::new();
    let (mut beats, mut ended) = (0, false);
    let since = worker.until(|message| {
        match message {
            WorkerMessage::Tracks(t) => {
                assert!(t.pts_ms > last_pts_ms, "stream time goes on over the seam");
                last_pts_ms = t.pts_ms;
                let standing: Vec<_> =
                    t.tracks.iter().filter(|t| t.stationary_since_ms.is_some() && t.zones.len() == 1).collect();
                ids.extend(standing.iter().map(|t| t.id));
                let longest = standing.iter().filter_map(|v| v.stationary_since_ms).map(|since| t.at_ms - since).max();
                return longest.filter(|_| t.pts_ms > 6000 && standing.len() == 2);
            }
            WorkerMessage::Heartbeat(beat) => {
                beats += 1;
                assert!(beat.rss_bytes > 1_000_000);
            }
            WorkerMessage::State { state, .. } => ended |= state == CameraState::Ended,
            _ => {}
        }
        None
    });
    assert!(!ended && since > 3000 && ids.len() == 2, "{since} {ids:?}");
    assert!(beats >= 3, "{beats} heartbeats in six seconds");
    Ok(())
}
