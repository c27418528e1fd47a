//! `gengfu-camera-worker`: one camera in one process; the other end of [`gengfu::cameras`], which starts it.
//!
//! A program of its own, so that the gateway and its command line never load the video and inference libraries: that is 20 MiB of their
//! memory (decision 0002). It is installed beside `gengfu`, from the same build, and the two check each other's protocol version.

use std::io::{BufReader, stdin, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    gengfu_vision::worker::run(BufReader::new(stdin()), stdout()).into()
}
