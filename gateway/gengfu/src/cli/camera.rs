//! `gengfu camera accept`: a camera was turned on purpose, and its zones are drawn for the new view.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use gengfu_contract::slug::Slug;

use crate::cameras::views;
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Accept what the camera looks at now as its right view; it is learned within a minute or two.
    Accept {
        /// The camera's name.
        camera: String,
        /// The gateway's configuration.
        #[arg(short, long, value_name = "FILE", default_value = "/etc/gengfu/gengfu.toml")]
        config: PathBuf,
    },
}

pub(super) fn camera(args: &Args) -> anyhow::Result<ExitCode> {
    let Verb::Accept { camera, config } = &args.verb;
    let config = Config::load(config)?;
    let known = || config.cameras.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
    let camera = Slug::new(camera.as_str()).ok().filter(|name| config.cameras.iter().any(|c| c.name == *name));
    let camera = camera.with_context(|| format!("no such camera; the configuration has: {}", known()))?;
    let data_dir = &config.gateway.data_dir;
    let was_known = views::accept(data_dir, &camera).with_context(|| {
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
