//! `gengfu camera-worker`: the other end of [`crate::cameras`].

use std::process::ExitCode;

pub(super) fn run() -> ExitCode {
    gengfu_vision::worker::run(std::io::BufReader::new(std::io::stdin()), std::io::stdout()).into()
}
