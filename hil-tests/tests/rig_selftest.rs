//! The rig does what it says: each real part starts, answers, breaks in its ways and comes back. A scenario
//! that fails can then be believed. Method: ask every part with a program that is not ours (mosquitto's
//! clients, ffprobe, the kernel).

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use hil_tests::broker::{Broker, BrokerOptions, Memory, connect_code};
use hil_tests::clip::{self, Clip, Codec};
use hil_tests::disk::PowerCutDisk;
use hil_tests::process::{Process, eventually, run};
use hil_tests::proxy::Proxy;
use hil_tests::rtsp::{Login, RtspCamera};
use hil_tests::skip::{self, Need, need};
use hil_tests::{Result, RigError};

const SOON: Duration = Duration::from_secs(20);

/// With this in its environment, this program is a test that is about to be killed; see [`killed_test`].
const DOOMED: &str = "GENGFU_RIG_DOOMED";

fn main() -> ExitCode {
    if let Some(dir) = std::env::var_os(DOOMED) {
        return doomed(Path::new(&dir));
    }
    let mqtt = || need::all([need::tool("mosquitto"), need::tool("mosquitto_pub")]);
    let camera = || need::all([need::rtsp_server(), need::tool("ffmpeg"), need::tool("ffprobe")]);
    let footage = || need::all([camera(), need::file(&clip::vtest())]);
    let disk = || -> Need { need::all([need::root(), need::tool("mkfs.ext4")]) };
    skip::main(vec![
        skip::test("process_dies_with_a_test_that_is_killed", need::nothing(), killed_test),
        skip::test("broker_keeps_a_message_over_kill_and_forgets_it_when_emptied", mqtt(), broker_memory),
        skip::test("broker_that_is_frozen_answers_after_it_is_thawed", mqtt(), broker_frozen),
        skip::test("broker_refuses_strangers_and_topics_outside_the_acl", mqtt(), broker_acl),
        skip::test("broker_that_cannot_start_says_why", mqtt(), broker_bad_config),
        skip::test("proxy_stands_between_a_real_client_and_the_broker", mqtt(), proxy_with_broker),
        skip::test("rtsp_h264_is_read_by_ffprobe_over_the_clips_end", camera(), || shows(Codec::H264)),
        skip::test("rtsp_h265_is_read_by_ffprobe_over_the_clips_end", camera(), || shows(Codec::H265)),
        skip::test("rtsp_mjpeg_is_read_by_ffprobe_over_the_clips_end", camera(), || shows(Codec::Mjpeg)),
        skip::test("rtsp_camera_with_a_login_refuses_strangers", camera(), logins),
        skip::test("rtsp_camera_comes_back_at_its_address_after_kill", camera(), camera_restart),
        skip::test("rtsp_camera_shows_debians_street_footage", footage(), street),
        skip::test("clip_broken_or_garbage_is_noticed_by_ffmpeg", need::tool("ffmpeg"), broken_clips),
        skip::test("disk_cut_keeps_what_was_synced_and_loses_what_was_not", disk(), disk_cut),
        skip::test("disk_cut_full_disk_refuses_and_recovers", disk(), disk_full),
    ])
}

fn folder() -> Result<tempfile::TempDir> {
    tempfile::tempdir().map_err(|e| RigError::failed("make a temporary folder", e))
}

/// A mosquitto client program that talks to `port`.
fn client(program: &str, port: u16, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(words);
    command
}

/// Starts a child and waits to be killed.
fn doomed(dir: &Path) -> ExitCode {
    let mut command = Command::new("sleep");
    command.arg("600");
    match Process::spawn("child", command, dir) {
        Ok(mut child) => {
            println!("child {}", child.pid());
            let _ = child.wait(Duration::from_secs(600));
        }
        Err(e) => eprintln!("{e}"),
    }
    ExitCode::FAILURE
}

/// The test process is killed as a test runner does it after a timeout: nothing of it can clean up any more.
fn killed_test() -> Result<()> {
    let dir = folder()?;
    let mut command = Command::new(std::env::current_exe().map_err(|e| RigError::failed("find this program", e))?);
    command.env(DOOMED, dir.path());
    let mut test = Process::spawn("test", command, dir.path())?;
    let line = test.wait_for_line("child ", SOON)?;
    let child = format!("/proc/{}", line.trim_start_matches("child "));
    assert!(Path::new(&child).exists(), "{line}");
    test.kill();
    eventually("the killed test's child is gone", SOON, || {
        // Until init has collected it, a dead process keeps its folder, without a command line.
        let alive = fs::read(format!("{child}/cmdline")).is_ok_and(|words| !words.is_empty());
        if alive { Err(format!("{child} lives")) } else { Ok(()) }
    })
}

fn broker_memory() -> Result<()> {
    let dir = folder()?;
    let options = BrokerOptions { persistence: true, ..BrokerOptions::default() };
    let mut broker = Broker::start(dir.path(), &options)?;
    let port = broker.port();
    let retained = ["-t", "watch", "-W", "20", "-C", "1"];
    run(client("mosquitto_pub", port, &["-t", "watch", "-m", "all is well", "-q", "1", "-r"]))?;
    // Saved by the broker's own loop, once a second at most.
    let db = dir.path().join("mosquitto.db");
    eventually("the broker has saved", SOON, || {
        let bytes = fs::read(&db).map_err(|e| e.to_string())?;
        let saved = bytes.windows(11).any(|w| w == b"all is well");
        if saved { Ok(()) } else { Err(format!("{} bytes without the message", bytes.len())) }
    })?;
    broker.kill();
    assert!(connect_code(broker.addr()).is_err(), "a killed broker answered");
    broker.restart(Memory::Keep)?;
    assert_eq!(run(client("mosquitto_sub", port, &retained))?, "all is well\n");
    broker.restart(Memory::Empty)?;
    let forgotten = run(client("mosquitto_sub", port, &["-t", "watch", "-W", "1", "-C", "1", "-E"]));
    assert_eq!(forgotten?, "", "an emptied broker remembered");
    broker.stop()
}

fn broker_frozen() -> Result<()> {
    let dir = folder()?;
    let mut broker = Broker::start(dir.path(), &BrokerOptions::default())?;
    broker.freeze()?;
    let silent = connect_code(broker.addr()).expect_err("a frozen broker answered");
    assert!(silent.contains("no CONNACK"), "{silent}");
    broker.thaw()?;
    eventually("the broker answers again", SOON, || connect_code(broker.addr())).map(|_| ())
}

fn broker_acl() -> Result<()> {
    let dir = folder()?;
    let options = BrokerOptions {
        acl: Some("user box-1\ntopic readwrite site/box-1/#\n".into()),
        users: vec![("box-1".into(), "secret".into())],
        ..BrokerOptions::default()
    };
    let broker = Broker::start(dir.path(), &options)?;
    assert_eq!(connect_code(broker.addr()), Ok(5), "CONNACK of a stranger");
    let publish = |topic: &str| {
        let words = ["-V", "5", "-u", "box-1", "-P", "secret", "-q", "1", "-t", topic, "-m", "x"];
        run(client("mosquitto_pub", broker.port(), &words))
    };
    publish("site/box-1/event")?;
    // mosquitto_pub ends with 0 all the same and only warns; the broker's log is the judge.
    let _ = publish("site/box-2/event");
    let mut broker = broker;
    broker.process().wait_for_line("Denied PUBLISH", SOON).map(|_| ())
}

fn broker_bad_config() {
    let dir = folder().expect("a temporary folder");
    let options = BrokerOptions { extra: vec!["no_such_option 1".into()], ..BrokerOptions::default() };
    let error = Broker::start(dir.path(), &options).expect_err("mosquitto took an unknown option").to_string();
    assert!(error.contains("no_such_option"), "{error}");
}

fn proxy_with_broker() -> Result<()> {
    let dir = folder()?;
    let broker = Broker::start(dir.path(), &BrokerOptions::default())?;
    let proxy = Proxy::start(broker.addr())?;
    assert_eq!(connect_code(proxy.addr()), Ok(0));
    proxy.blackhole();
    assert!(connect_code(proxy.addr()).is_err(), "an answer came out of the black hole");
    // The 14 bytes of this CONNECT; the DISCONNECT of the connection before may be on its way still.
    assert!(proxy.swallowed_bytes() >= 14, "the CONNECT went elsewhere");
    proxy.heal();
    assert_eq!(connect_code(proxy.addr()), Ok(0));
    Ok(())
}

/// What ffprobe counts on `url` in so many seconds: codec and packets read.
fn probe(url: &str, seconds: u32) -> Result<(String, u32)> {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-rtsp_transport", "tcp", "-timeout", "15000000", "-select_streams", "v:0"]);
    command.args(["-read_intervals", &format!("%+{seconds}"), "-count_packets"]);
    command.args(["-show_entries", "stream=codec_name,nb_read_packets", "-of", "csv=p=0", url]);
    let line = run(command)?;
    let doing = || format!("read ffprobe's line {line:?}");
    let (codec, packets) = line.trim().split_once(',').ok_or_else(|| RigError::failed(doing(), "no comma"))?;
    let packets = packets.parse().map_err(|e| RigError::failed(doing(), e))?;
    Ok((codec.to_owned(), packets))
}

/// A clip of 2 s at 25 frames a second, watched for 5 s: 125 packets when the clip's end joins its beginning. A
/// late start at the next key frame and the first seconds' buffering cost some.
fn shows(codec: Codec) -> Result<()> {
    let dir = folder()?;
    let clip = Clip::test_picture(dir.path(), codec, 640, 360, 2)?;
    let camera = RtspCamera::start(dir.path(), &clip)?;
    let (name, packets) = probe(&camera.url(), 5)?;
    assert_eq!(
        name,
        match codec {
            Codec::H264 | Codec::H264B => "h264",
            Codec::H265 => "hevc",
            Codec::Mjpeg => "mjpeg",
        }
    );
    assert!((60..=190).contains(&packets), "{packets} packets in 5 s");
    Ok(())
}

fn logins() -> Result<()> {
    let dir = folder()?;
    let clip = Clip::test_picture(dir.path(), Codec::H264, 320, 180, 2)?;
    for login in [Login::Basic, Login::Digest] {
        let camera = RtspCamera::start_with_login(dir.path(), &clip, login, "watch", "fires")?;
        assert_eq!(probe(&camera.url_with_login(), 1)?.0, "h264", "{login:?}");
        let stranger = probe(&camera.url(), 1).expect_err("the camera showed itself to a stranger").to_string();
        assert!(stranger.contains("401"), "{login:?}: {stranger}");
    }
    Ok(())
}

fn camera_restart() -> Result<()> {
    let dir = folder()?;
    let clip = Clip::test_picture(dir.path(), Codec::H264, 320, 180, 2)?;
    let mut camera = RtspCamera::start(dir.path(), &clip)?;
    // A viewer is in the middle of it when the camera dies; its reader must die too.
    let mut viewer = Command::new("ffmpeg");
    viewer.args(["-nostdin", "-v", "error", "-rtsp_transport", "tcp", "-i", &camera.url()]);
    viewer.args(["-c", "copy", "-progress", "pipe:1", "-f", "null", "-"]);
    let mut viewer = Process::spawn("viewer", viewer, dir.path())?;
    viewer.wait_for_line("progress=continue", SOON)?;
    camera.kill();
    viewer.wait(SOON)?;
    eventually("the killed camera's clip reader is gone", SOON, || match users_of(clip.path()) {
        pids if pids.is_empty() => Ok(()),
        pids => Err(format!("processes {pids:?} still read the clip")),
    })?;
    camera.restart()?;
    assert_eq!(probe(&camera.url(), 1)?.0, "h264");
    Ok(())
}

/// Processes whose command line names this file.
fn users_of(file: &Path) -> Vec<String> {
    let name = file.display().to_string();
    let named = |pid: &String| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).split('\0').any(|word| word == name)
    };
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|e| e.file_name().into_string().ok()).filter(named).collect()
}

fn street() -> Result<()> {
    let dir = folder()?;
    let clip = Clip::from_footage(dir.path(), &clip::vtest(), Codec::H264, 10, None)?;
    let camera = RtspCamera::start(dir.path(), &clip)?;
    let (name, packets) = probe(&camera.url(), 3)?;
    assert_eq!(name, "h264");
    assert!((10..=60).contains(&packets), "{packets} packets in 3 s at 10 a second");
    Ok(())
}

fn broken_clips() -> Result<()> {
    let dir = folder()?;
    let whole = Clip::test_picture(dir.path(), Codec::H264, 640, 360, 4)?;
    let frames = |path: &Path| {
        let mut command = Command::new("ffprobe");
        command.args(["-v", "quiet", "-count_frames", "-select_streams", "v:0"]);
        command.args(["-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"]).arg(path);
        run(command).ok().and_then(|line| line.trim().parse::<u32>().ok())
    };
    assert_eq!(frames(whole.path()), Some(100));
    let cut_short = frames(&whole.truncated(50)?).unwrap_or(0);
    assert!((1..100).contains(&cut_short), "{cut_short} frames of half a clip");
    let damaged = (whole.damaged(7, 500)?, whole.damaged(8, 500)?);
    assert_ne!(fs::read(&damaged.0).ok(), fs::read(&damaged.1).ok(), "two seeds, the same damage");
    assert_eq!(frames(&clip::garbage(dir.path(), 7, 200_000)?), None);
    Ok(())
}

fn disk_cut() -> Result<()> {
    let dir = folder()?;
    let mut disk = PowerCutDisk::create(dir.path(), 32)?;
    let fail = |e: std::io::Error| RigError::failed("write to the disk under test", e);
    for round in 0..3 {
        let (kept, lost) = (disk.path().join(format!("kept-{round}")), disk.path().join(format!("lost-{round}")));
        let mut file = File::create(&kept).map_err(fail)?;
        file.write_all(b"synced").and_then(|()| file.sync_all()).map_err(fail)?;
        File::open(disk.path()).and_then(|folder| folder.sync_all()).map_err(fail)?;
        fs::write(&lost, b"only in memory").map_err(fail)?;
        disk.cut()?;
        fs::write(disk.path().join("late"), b"x").expect_err("a disk without power took a write");
        drop(file);
        disk.power_on()?;
        assert_eq!(fs::read(&kept).map_err(fail)?, b"synced", "round {round}");
        // The name may or may not have reached the journal; the bytes cannot be there.
        assert_ne!(fs::read(&lost).unwrap_or_default(), b"only in memory", "round {round}");
    }
    Ok(())
}

fn disk_full() -> Result<()> {
    let dir = folder()?;
    let disk = PowerCutDisk::create(dir.path(), 32)?;
    disk.fill(256)?;
    let file = disk.path().join("too-big");
    let error = fs::write(&file, vec![1; 1024 * 1024]).expect_err("a full disk took a megabyte");
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    disk.empty()?;
    fs::write(&file, vec![1; 1024 * 1024]).map_err(|e| RigError::failed("write to the emptied disk", e))
}
