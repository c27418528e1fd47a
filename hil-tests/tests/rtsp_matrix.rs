//! Goal: whatever a camera speaks is read, whatever happens to it is told for what it is, and it is found again, with nothing left behind.
//! Method: real servers (gst-rtsp-server; an HTTP camera with Basic and Digest) and `Capture` as the camera worker uses it, in this
//! process, so that its descriptors and memory can be counted. `GENGFU_ROUNDS` reconnects so often and plays the whole matrix (`make
//! test-rtsp`); without it a share of each is played, which `GENGFU_SEED` repeats, the garbage too.

use std::process::ExitCode;
use std::time::Duration;

use gengfu_vision::decode::{Capture, CaptureConfig, DecodeMode};
use gengfu_vision::picture::VideoFrame;
use gengfu_vision::source::{SourceError, SourceUrl, Transport, Watchdog};
use hil_tests::clip::{Clip, Codec};
use hil_tests::http_camera::HttpCamera;
use hil_tests::node::rounds;
use hil_tests::process::eventually;
use hil_tests::proxy::{Direction, Proxy, Treatment};
use hil_tests::rtsp::{Login, RtspCamera};
use hil_tests::skip::{self, need};
use hil_tests::{Result, RigError};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

/// A camera may send nothing for this long; a test machine that is busy elsewhere sends nothing for a while, too.
const SILENCE_MS: u64 = 4000;
/// A server that starts, a key frame that comes, on a busy machine.
const BACK_WITHIN: Duration = Duration::from_secs(60);
const USER: &str = "watch";
/// As it stands in an address, and as it is.
const PASSWORD: (&str, &str) = ("ge%40heim", "ge@heim");

fn main() -> ExitCode {
    let needs = || need::all([need::tool("ffmpeg"), need::rtsp_server()]);
    skip::main(vec![
        skip::test("rtsp_matrix_of_codec_transport_and_login_is_read", needs(), matrix),
        skip::test("rtsp_server_killed_frozen_changed_is_told_and_found_again", needs(), faults),
        skip::test("rtsp_resolution_may_change_in_the_stream", needs(), resolution),
        skip::test("rtsp_garbage_packets_end_in_pictures_or_an_error", needs(), garbage),
        skip::test("rtsp_reconnects_leave_nothing_behind", needs(), reconnects),
        skip::test("http_camera_gives_pictures_with_every_login", need::tool("ffmpeg"), http),
    ])
}

/// Sizes here are multiples of 16: MJPEG in RTP (RFC 2435) knows no others than of 8.
fn config(url: &str, transport: Transport, decode: DecodeMode) -> CaptureConfig {
    let silence_ms = SILENCE_MS;
    CaptureConfig { transport, decode, silence_ms, fps_max: 25.0, ..CaptureConfig::new(SourceUrl::new(url)) }
}

fn folder() -> Result<tempfile::TempDir> {
    tempfile::tempdir().map_err(|e| RigError::failed("make a temporary folder", e))
}

fn source(error: SourceError) -> RigError {
    RigError::failed("read the camera", error)
}

/// Opens the stream and takes `wanted` pictures, whose times must rise.
fn watch(config: &CaptureConfig, wanted: usize) -> std::result::Result<(Capture, Vec<VideoFrame>), SourceError> {
    let mut capture = Capture::open(config, 0, Watchdog::new())?;
    let mut pictures: Vec<VideoFrame> = Vec::new();
    while pictures.len() < wanted {
        let Some(picture) = capture.next_frame()? else { panic!("a camera has no end") };
        assert!(pictures.last().is_none_or(|last| last.pts_ms < picture.pts_ms), "times rise");
        pictures.push(picture);
    }
    Ok((capture, pictures))
}

/// Waits until the camera shows a picture again; gives its size.
fn found_again(config: &CaptureConfig) -> Result<(u32, u32)> {
    eventually("the camera shows a picture again", BACK_WITHIN, || {
        let (_, pictures) = watch(config, 1).map_err(|e| e.to_string())?;
        Ok((pictures[0].width(), pictures[0].height()))
    })
}

/// Reads on until the stream breaks, as it must.
fn breaks(capture: &mut Capture) -> SourceError {
    loop {
        match capture.next_frame() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a camera has no end"),
            Err(error) => return error,
        }
    }
}

/// The same share in every run of `make test`; another by `GENGFU_SEED`.
fn seed() -> u64 {
    std::env::var("GENGFU_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Is everything played, as `make test-rtsp` does?
fn is_whole() -> bool {
    std::env::var_os("GENGFU_ROUNDS").is_some()
}

/// All of them, or in `make test` one that the seed chooses.
fn share<T: Copy>(all: &[T]) -> Vec<T> {
    let chosen = usize::try_from(seed()).unwrap_or(0) % all.len();
    if is_whole() { all.to_vec() } else { vec![all[chosen]] }
}

/// The first pictures of a stream. A server that has just begun, or whose last client has just left, may have nothing to describe yet
/// ("invalid data"): a camera is asked again, as a worker does.
fn joined(what: &str, config: &CaptureConfig, wanted: usize) -> Result<(Capture, Vec<VideoFrame>)> {
    eventually(what, BACK_WITHIN, || watch(config, wanted).map_err(|e| e.to_string()))
}

const LOGINS: [Option<Login>; 3] = [None, Some(Login::Basic), Some(Login::Digest)];
const CODECS: [Codec; 4] = [Codec::H264, Codec::H264B, Codec::H265, Codec::Mjpeg];

fn camera(dir: &std::path::Path, clip: &Clip, login: Option<Login>) -> Result<RtspCamera> {
    match login {
        None => RtspCamera::start(dir, clip),
        Some(login) => RtspCamera::start_with_login(dir, clip, login, USER, PASSWORD.1),
    }
}

/// The address with the password as it must be written in one.
fn address(camera: &RtspCamera, login: Option<Login>) -> String {
    let user = login.map_or(String::new(), |_| format!("{USER}:{}@", PASSWORD.0));
    camera.url().replacen("rtsp://", &format!("rtsp://{user}"), 1)
}

fn matrix() -> Result<()> {
    let mut random = rand::rngs::StdRng::seed_from_u64(seed());
    let mut servers: Vec<(Codec, Option<Login>)> = CODECS.iter().flat_map(|c| LOGINS.map(|l| (*c, l))).collect();
    if !is_whole() {
        // Every codec once, and between them every login and transport.
        let mut logins = LOGINS.to_vec();
        logins.shuffle(&mut random);
        servers = CODECS.iter().copied().zip(logins.into_iter().cycle()).collect();
    }
    let dir = folder()?;
    let mut cells = 0;
    for (n, (codec, login)) in servers.into_iter().enumerate() {
        let clip = Clip::quick(dir.path(), codec, 320, 176)?;
        let camera = camera(dir.path(), &clip, login)?;
        let transports = [Transport::Tcp, Transport::Udp];
        let decodes = [DecodeMode::KeyFrames, DecodeMode::EveryFrame, DecodeMode::Auto];
        let all = transports.iter().flat_map(|transport| decodes.map(|decode| (*transport, decode)));
        // In `make test` TCP and UDP, key frames and every frame take turns.
        for (transport, decode) in all.enumerate().filter(|(i, _)| is_whole() || *i == n % 2 * 4).map(|(_, cell)| cell)
        {
            read(&camera, (codec, login), transport, decode)?;
            cells += 1;
        }
        if login.is_some() {
            refused(&camera, "wr0ng")?;
        }
    }
    println!("{cells} cells of the matrix were read");
    Ok(())
}

/// One cell of the matrix.
fn read(camera: &RtspCamera, kind: (Codec, Option<Login>), transport: Transport, decode: DecodeMode) -> Result<()> {
    let (codec, login) = kind;
    let cell = format!("{codec:?} {transport:?} {login:?} {decode:?}");
    let (capture, pictures) =
        joined(&format!("{cell} is read"), &config(&address(camera, login), transport, decode), 6)?;
    let sizes: Vec<_> = pictures.iter().map(|p| (p.width(), p.height())).collect();
    assert_eq!(sizes, [(320, 176); 6], "{cell}");
    let counters = capture.counters();
    // Over UDP a machine that is busy elsewhere loses packets, and that is no fault of the reader.
    assert!(counters.decode_errors == 0 || transport == Transport::Udp, "{cell}: {counters:?}");
    // MJPEG has nothing but key frames; the choice by measurement begins with everything.
    let spares = decode == DecodeMode::KeyFrames && codec != Codec::Mjpeg;
    assert!(!spares || counters.decoded * 3 < counters.packets, "{cell}: {counters:?}");
    Ok(())
}

fn refused(camera: &RtspCamera, wrong: &str) -> Result<()> {
    let url = camera.url().replacen("rtsp://", &format!("rtsp://{USER}:{wrong}@"), 1);
    let error = watch(&config(&url, Transport::Tcp, DecodeMode::Auto), 1).err();
    let Some(error @ SourceError::Open { .. }) = error else {
        return Err(RigError::failed("be refused with a wrong password", format!("{error:?}")));
    };
    let text = format!("{error} {error:?}");
    assert!(text.contains("credentials") && !text.contains(wrong) && !text.contains(USER), "{text}");
    Ok(())
}

fn faults() -> Result<()> {
    let dir = folder()?;
    let clip = Clip::quick(dir.path(), Codec::H264, 320, 176)?;
    let other = Clip::quick(dir.path(), Codec::H265, 480, 272)?;
    for transport in share(&[Transport::Tcp, Transport::Udp]) {
        let mut server = RtspCamera::start(dir.path(), &clip)?;
        let config = config(&server.url(), transport, DecodeMode::Auto);
        let (mut capture, _) = joined("a new server is read", &config, 3)?;
        server.kill();
        let killed = breaks(&mut capture);
        assert!(matches!(killed, SourceError::Closed { .. } | SourceError::Silence { .. }), "{transport:?}: {killed}");
        assert!(matches!(watch(&config, 1), Err(SourceError::Open { .. })), "nobody listens");
        server.restart()?;
        found_again(&config)?;

        let (mut capture, _) = joined("a server that was started again is read", &config, 3)?;
        server.freeze()?;
        let frozen = breaks(&mut capture);
        assert!(matches!(frozen, SourceError::Silence { .. }), "{transport:?}: {frozen}");
        server.thaw()?;
        found_again(&config)?;

        server.restart_with(&other)?;
        assert_eq!(
            found_again(&config)?,
            (480, 272),
            "{transport:?}: another codec and resolution at the same address"
        );
        println!("{transport:?}: killed: {killed}; frozen: {frozen}");
    }
    Ok(())
}

fn resolution() -> Result<()> {
    let dir = folder()?;
    let small = Clip::quick(dir.path(), Codec::H264, 320, 176)?;
    let clip = small.then(&Clip::quick(dir.path(), Codec::H264, 480, 272)?)?;
    let server = RtspCamera::start(dir.path(), &clip)?;
    for decode in share(&[DecodeMode::KeyFrames, DecodeMode::EveryFrame]) {
        let config = config(&server.url(), Transport::Tcp, decode);
        let (mut capture, first) = joined("the first size is read", &config, 1)?;
        let mut sizes = vec![(first[0].width(), first[0].height())];
        let mut pictures = 0;
        // The clip is four seconds long and begins again: each size is seen more than once.
        while sizes.len() < 3 {
            let Some(picture) = capture.next_frame().map_err(source)? else { panic!("a camera has no end") };
            pictures += 1;
            assert!(pictures < 600, "{decode:?}: {pictures} pictures, and only {sizes:?}");
            let size = (picture.width(), picture.height());
            if sizes.last() != Some(&size) {
                sizes.push(size);
            }
        }
        assert!(
            sizes.windows(2).all(|w| w[0] != w[1]) && sizes.contains(&(320, 176)) && sizes.contains(&(480, 272)),
            "{sizes:?}"
        );
    }
    Ok(())
}

fn garbage() -> Result<()> {
    let mut random = rand::rngs::StdRng::seed_from_u64(seed());
    let dir = folder()?;
    let (mut pictures, mut errors) = (0, 0);
    for codec in share(&[Codec::H264B, Codec::H265, Codec::Mjpeg]) {
        let clip = Clip::quick(dir.path(), codec, 320, 176)?;
        let server = RtspCamera::start(dir.path(), &clip)?;
        let Some(addr) = server.url().split('/').nth(2).and_then(|addr| addr.parse().ok()) else {
            return Err(RigError::failed("find the server's address", server.url()));
        };
        let proxy = Proxy::start(addr)?;
        let config = config(&format!("rtsp://{}/cam", proxy.addr()), Transport::Tcp, DecodeMode::EveryFrame);
        for every in [20_000, 2_000, 200] {
            // It begins well and goes bad under way.
            let (mut capture, _) = joined("a good stream is read", &config, 1)?;
            proxy.set(Direction::ToClient, Treatment::Garble { every, seed: random.random() });
            for _ in 0..40 {
                match capture.next_frame() {
                    Ok(Some(_)) => pictures += 1,
                    Ok(None) => panic!("a camera has no end"),
                    Err(SourceError::Stopped) => panic!("nobody stopped it"),
                    Err(_) => {
                        errors += 1;
                        break;
                    }
                }
            }
            // Also the words of RTSP are garbage now: that is an error, not a hang.
            let _ = watch(&config, 1);
            proxy.heal();
            assert_eq!(found_again(&config)?, (320, 176), "{codec:?} after one byte in {every}");
        }
    }
    println!("garbage: {pictures} pictures, {errors} errors, and found again every time");
    Ok(())
}

/// Open descriptors and resident KiB of this process.
fn footprint() -> Result<(usize, u64)> {
    let unreadable = |e| RigError::failed("read /proc/self", e);
    let descriptors = std::fs::read_dir("/proc/self/fd").map_err(unreadable)?.count();
    gengfu_vision::sandbox::release_freed_memory();
    Ok((descriptors, gengfu_vision::sandbox::resident_bytes() / 1024))
}

fn reconnects() -> Result<()> {
    let rounds = rounds(12);
    let dir = folder()?;
    let cameras: Vec<(RtspCamera, CaptureConfig)> =
        [(Codec::H264B, Transport::Tcp), (Codec::H265, Transport::Udp), (Codec::Mjpeg, Transport::Tcp)]
            .into_iter()
            .map(|(codec, transport)| {
                let server = camera(dir.path(), &Clip::quick(dir.path(), codec, 320, 176)?, Some(Login::Digest))?;
                let config = config(&address(&server, Some(Login::Digest)), transport, DecodeMode::Auto);
                Ok((server, config))
            })
            .collect::<Result<_>>()?;
    // The first rounds load tables and fill caches.
    let warm = rounds.min(6);
    let mut before = footprint()?;
    for round in 0..warm + rounds {
        if round == warm {
            before = footprint()?;
        }
        let (_, config) = &cameras[round % cameras.len()];
        // Some of them are refused, as by a password that was changed.
        if round % 10 == 9 {
            let wrong = config.url.reveal().replacen(PASSWORD.0, "wr0ng", 1);
            assert!(watch(&CaptureConfig { url: SourceUrl::new(wrong), ..config.clone() }, 1).is_err());
        } else {
            joined(&format!("reconnect for the {round}th time"), config, 1)?;
        }
    }
    let after = footprint()?;
    println!(
        "{rounds} reconnects: descriptors {} before, {} after; resident {} KiB before, {} KiB after",
        before.0, after.0, before.1, after.1
    );
    assert!(after.0 <= before.0, "descriptors leak");
    // Half a leaked RTSP context a round would be some 20 MiB over 1,000 rounds; a heap's own unrest is a few, which is all that
    // could be seen after a dozen.
    assert!(rounds < 300 || after.1 <= before.1 + 6 * 1024, "memory leaks");
    Ok(())
}

fn http() -> Result<()> {
    let dir = folder()?;
    let clip = Clip::quick(dir.path(), Codec::H264, 320, 176)?;
    for login in share(&LOGINS) {
        let mut camera = HttpCamera::start(dir.path(), &clip, login.map(|login| (login, USER, "geheim")))?;
        for path in ["snap.jpg", "stream"] {
            let mut wanted = config(&camera.url(path), Transport::Tcp, DecodeMode::Auto);
            wanted.snapshot_every_ms = 150;
            let what = format!("{path} with {login:?}");
            let (_, pictures) = watch(&wanted, 4).map_err(|e| RigError::failed(format!("read {what}"), e))?;
            assert_eq!((pictures[3].width(), pictures[3].height()), (320, 176), "{what}");
            if path == "snap.jpg" {
                let apart: Vec<i64> = pictures.windows(2).map(|w| w[1].pts_ms - w[0].pts_ms).collect();
                assert!(apart.iter().all(|ms| *ms >= 150), "{what}: one picture in 150 ms, not {apart:?}");
            }
            if login.is_some() {
                wanted.url = SourceUrl::new(camera.url(path).replacen("geheim", "wr0ng", 1));
                let error = watch(&wanted, 1).err().map(|e| format!("{e} {e:?}")).unwrap_or_default();
                assert!(error.contains("401") && !error.contains("wr0ng"), "{what}: {error}");
            }
        }
        let (mut capture, _) =
            watch(&config(&camera.url("stream"), Transport::Tcp, DecodeMode::Auto), 2).map_err(source)?;
        camera.kill();
        let killed = breaks(&mut capture);
        assert!(matches!(killed, SourceError::Closed { .. } | SourceError::Silence { .. }), "{login:?}: {killed}");
    }
    Ok(())
}
