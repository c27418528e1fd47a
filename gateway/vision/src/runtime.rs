//! Finding and loading ONNX Runtime. Owns the search order and the one environment a process may have; refuses to
//! guess: a library that is not found is an error that says where was looked and what to do, never a panic.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;

/// File name looked for in a data folder.
pub const LIBRARY_FILE: &str = "libonnxruntime.so";

/// Why ONNX Runtime is not available.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No library in any of the places.
    #[error(
        "ONNX Runtime was not found (looked at: {looked}); run scripts/fetch-models.sh, or set the library's path in the configuration or in ORT_DYLIB_PATH"
    )]
    NotFound {
        /// The places, in order.
        looked: String,
    },
    /// A library that does not load or is too old.
    #[error("ONNX Runtime at {path} was refused: {cause}; run scripts/fetch-models.sh to get the tested version")]
    Refused {
        /// The library.
        path: String,
        /// What the loader said.
        cause: String,
    },
}

/// Looks for the library: the configured path, then `ORT_DYLIB_PATH` (given as an argument), then `<data>/lib/`. A path that
/// was given but does not exist is an error: falling through would hide a typing mistake.
///
/// # Errors
/// [`RuntimeError::NotFound`] with every place looked at.
pub fn find(
    explicit: Option<&Path>,
    from_env: Option<&OsStr>,
    data_dir: Option<&Path>,
) -> Result<PathBuf, RuntimeError> {
    let mut looked = Vec::new();
    let given = explicit.map(Path::to_path_buf).or_else(|| from_env.filter(|v| !v.is_empty()).map(PathBuf::from));
    let candidate = given.or_else(|| data_dir.map(|dir| dir.join("lib").join(LIBRARY_FILE)));
    if let Some(path) = candidate {
        if path.is_file() {
            return Ok(path);
        }
        looked.push(path.display().to_string());
    }
    let looked = if looked.is_empty() { "nowhere: no path was given".to_owned() } else { looked.join(", ") };
    Err(RuntimeError::NotFound { looked })
}

static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// The process's environment, loading the library on first use. Later calls return the first library, whatever path they
/// name: ONNX Runtime allows one environment per process. A load that failed may be tried again.
///
/// # Errors
/// [`RuntimeError::NotFound`] when there is no such file, [`RuntimeError::Refused`] when it is no usable ONNX Runtime.
pub fn environment(library: &Path) -> Result<Environment, RuntimeError> {
    let mut slot = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = slot.as_ref() {
        return Ok(environment.clone());
    }
    if !library.is_file() {
        return Err(RuntimeError::NotFound { looked: library.display().to_string() });
    }
    let refused = |cause: String| RuntimeError::Refused { path: library.display().to_string(), cause };
    let absolute = library.canonicalize().map_err(|cause| refused(cause.to_string()))?;
    let environment = ort::init_from(&absolute)
        .map_err(|cause| refused(cause.to_string()))?
        .with_name("gengfu")
        .with_telemetry(false)
        .build()
        .map_err(|cause| refused(cause.to_string()))?;
    *slot = Some(environment.clone());
    Ok(environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_looked_for_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, b"x").unwrap();
            path
        };
        let (explicit, env, data) = (make("a.so"), make("b.so"), make("lib/libonnxruntime.so"));
        let data_dir = Some(folder.path());
        assert_eq!(find(Some(&explicit), Some(env.as_os_str()), data_dir).unwrap(), explicit);
        assert_eq!(find(None, Some(env.as_os_str()), data_dir).unwrap(), env);
        assert_eq!(find(None, None, data_dir).unwrap(), data);
        let absent = folder.path().join("absent.so");
        let error = find(Some(&absent), None, data_dir).unwrap_err().to_string();
        assert!(error.contains("absent.so") && error.contains("fetch-models.sh"), "{error}");
        assert!(find(None, None, None).unwrap_err().to_string().contains("no path was given"));
    }

    #[test]
    fn a_file_that_is_no_library_is_refused_not_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LIBRARY_FILE);
        std::fs::write(&path, b"this is not a shared object").unwrap();
        let error = environment(&path).unwrap_err();
        assert!(matches!(error, RuntimeError::Refused { .. }), "{error}");
        let error = environment(Path::new("/no/such/library.so")).unwrap_err();
        assert!(matches!(error, RuntimeError::NotFound { .. }), "{error}");
    }
}
