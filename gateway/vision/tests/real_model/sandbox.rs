//! Goal: a worker that was taken over reaches nothing but its cameras. Method: this test binary again, as a process that enters
//! the worker's sandbox and then tries what an attacker would.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Output};

use gengfu_vision::sandbox::{self, Limits};
use gengfu_vision::worker::{LastWord, tell_last_word};

use crate::support::Skip;

/// Set for a process that shall try to escape, to how.
pub const ESCAPE_VARIABLE: &str = "GENGFU_VISION_TEST_ESCAPE";
const FOLDER_VARIABLE: &str = "GENGFU_VISION_TEST_FOLDER";

/// The child: enters the sandbox, tries, and says what it could do.
pub fn escape(what: &str) {
    let folder = std::env::var_os(FOLDER_VARIABLE).unwrap();
    let at = |file: &str| Path::new(&folder).join(file);
    let limits = Limits { writable: vec![at("stills")], ..Limits::default() };
    let confinement = sandbox::enter(&limits, &[at("allowed.avi")]).unwrap();
    tell_last_word();
    println!("{confinement:?}");
    let could = |name: &str, done: bool| println!("{name}: {done}");
    match what {
        "files" => {
            could("read the listed file", std::fs::read(at("allowed.avi")).is_ok());
            could("read another", std::fs::read(at("secret.key")).is_ok());
            could("read the users", std::fs::read("/etc/passwd").is_ok());
            could("write a still", std::fs::write(at("stills/a.jpg"), "x").is_ok());
            could("write beside the stills", std::fs::write(at("b.jpg"), "x").is_ok());
            could("change the listed file", std::fs::write(at("allowed.avi"), "x").is_ok());
            could("list the folder", std::fs::read_dir(&folder).is_ok());
        }
        "calls" => {
            could("start a thread", std::thread::spawn(|| ()).join().is_ok());
            could("have a UDP socket", std::net::UdpSocket::bind("127.0.0.1:0").is_ok());
            could("have a UNIX socket", std::os::unix::net::UnixDatagram::unbound().is_ok());
        }
        "spawn" => could("start a program", Command::new("/bin/true").status().is_ok()),
        _ => could("become a program", Command::new("/bin/true").exec().kind() != std::io::ErrorKind::Other),
    }
}

fn child(what: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("stills")).unwrap();
    for file in ["allowed.avi", "secret.key"] {
        std::fs::write(folder.path().join(file), file).unwrap();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(ESCAPE_VARIABLE, what).env(FOLDER_VARIABLE, folder.path()).output().unwrap()
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

pub fn files() -> Result<(), Skip> {
    let (out, err) = text(&child("files"));
    if out.contains("files: false") {
        return Err("this kernel has no Landlock".to_owned());
    }
    for (name, done) in [
        ("read the listed file", true),
        ("read another", false),
        ("read the users", false),
        ("write a still", true),
        ("write beside the stills", false),
        ("change the listed file", false),
        ("list the folder", false),
    ] {
        assert!(out.contains(&format!("{name}: {done}")), "{name} should be {done}:\n{out}{err}");
    }
    Ok(())
}

pub fn calls() -> Result<(), Skip> {
    let (out, err) = text(&child("calls"));
    for line in ["calls: true", "start a thread: true", "have a UDP socket: true", "have a UNIX socket: false"] {
        assert!(out.contains(line), "{line}:\n{out}{err}");
    }
    Ok(())
}

pub fn exec() -> Result<(), Skip> {
    let become_one = child("exec");
    let (out, err) = text(&become_one);
    assert_eq!(become_one.status.signal(), Some(SIGSYS), "{out}{err}");
    assert!(!out.contains("a program"), "{out}");
    let word = err.lines().find_map(LastWord::parse).expect("its last word is on standard error");
    assert!(word.signal == SIGSYS && word.call.is_some_and(|call| call > 0), "{word:?}");
    // The C library blocks all signals while it starts a program, so this death is told by the signal alone.
    let start_one = child("spawn");
    assert_eq!(start_one.status.signal(), Some(SIGSYS), "{:?}", text(&start_one));
    Ok(())
}

/// On every Linux this runs on (MIPS has another number).
const SIGSYS: i32 = 31;
