//! Pictures on the desk's disk.
//!
//! Owns writing one so that it is there whole or not at all. It refuses to judge whether it is the right one; [`super::model`] has
//! compared its hash.

use std::path::Path;

use tokio::io::AsyncWriteExt;

use super::model::Picture;

/// Writes a picture into `folder`, durably; gives its path.
///
/// # Errors
/// The disk's answer. Nothing under the picture's name is left behind then.
pub async fn write(folder: &Path, picture: &Picture) -> std::io::Result<String> {
    let path = folder.join(picture.file_name());
    let unfinished = path.with_extension("part");
    let mut file = tokio::fs::File::create(&unfinished).await?;
    file.write_all(&picture.bytes).await?;
    file.sync_all().await?;
    tokio::fs::rename(&unfinished, &path).await?;
    tokio::fs::File::open(folder).await?.sync_all().await?;
    Ok(path.display().to_string())
}
