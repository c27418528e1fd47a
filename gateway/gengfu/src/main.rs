//! `gengfu`: the gateway's one binary. See [`gengfu::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    gengfu::cli::main()
}
