//! Decoding by the graphics unit of the box. Owns libavutil's device and the way of a picture from it into plain memory; refuses with
//! the reason when the box, the driver or the codec cannot: a camera that was configured for it must not quietly cost a core.

use std::ffi::{CStr, CString};
use std::ptr;

use ffmpeg::ffi;
use ffmpeg_next as ffmpeg;
use serde::{Deserialize, Serialize};

/// Which unit decodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HwAccel {
    /// libav's name: `vaapi`, `cuda`, `drm`, `vdpau`, `qsv`…
    pub name: String,
    /// The device, such as `/dev/dri/renderD128`; the first if absent.
    #[serde(default)]
    pub device: Option<String>,
}

/// Why it cannot.
#[derive(Debug, thiserror::Error)]
pub enum HwError {
    /// libav does not know the name.
    #[error("this build knows no hardware decoder \"{name}\"; it has: {known}; correct `hwaccel` or remove it")]
    Unknown {
        /// As configured.
        name: String,
        /// What there is.
        known: String,
    },
    /// No such device, no driver, no right to it.
    #[error(
        "the hardware decoder \"{name}\" cannot be opened: {cause}; check the driver and `hwaccel_device`, or remove `hwaccel`"
    )]
    Device {
        /// As configured.
        name: String,
        /// What libav said.
        cause: ffmpeg::Error,
    },
    /// The device does not do this codec.
    #[error("the hardware decoder \"{name}\" does not decode {codec}; set the camera to H.264, or remove `hwaccel`")]
    Codec {
        /// As configured.
        name: String,
        /// The stream's codec.
        codec: String,
    },
}

/// An open device, and how its pictures are marked.
pub(crate) struct Device {
    reference: *mut ffi::AVBufferRef,
    format: ffi::AVPixelFormat,
}

// SAFETY: an AVBufferRef is counted atomically and has no thread affinity; `Device` never hands out the pointer for writing.
unsafe impl Send for Device {}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: the reference was made by av_hwdevice_ctx_create and is given back once.
        unsafe { ffi::av_buffer_unref(&raw mut self.reference) };
    }
}

impl Device {
    /// Opens the device for a codec.
    ///
    /// # Errors
    /// As [`HwError`] says.
    pub fn open(wanted: &HwAccel, codec: ffmpeg::Codec) -> Result<Self, HwError> {
        let name = || wanted.name.clone();
        let unknown = || HwError::Unknown { name: name(), known: known().join(", ") };
        let text = CString::new(wanted.name.as_str()).map_err(|_| unknown())?;
        // SAFETY: a zero-terminated string that lives through the call.
        let kind = unsafe { ffi::av_hwdevice_find_type_by_name(text.as_ptr()) };
        if kind == ffi::AVHWDeviceType::AV_HWDEVICE_TYPE_NONE {
            return Err(unknown());
        }
        let format =
            format_for(codec, kind).ok_or_else(|| HwError::Codec { name: name(), codec: codec.name().to_owned() })?;
        let invalid = |_| HwError::Device { name: name(), cause: ffmpeg::Error::InvalidData };
        let device = wanted.device.as_deref().map(CString::new).transpose().map_err(invalid)?;
        let mut reference = ptr::null_mut();
        // SAFETY: the pointers are to live locals or null as the call allows; on success `reference` is ours.
        let code = unsafe {
            let device = device.as_ref().map_or(ptr::null(), |d| d.as_ptr());
            ffi::av_hwdevice_ctx_create(&raw mut reference, kind, device, ptr::null_mut(), 0)
        };
        if code < 0 || reference.is_null() {
            return Err(HwError::Device { name: name(), cause: ffmpeg::Error::from(code) });
        }
        Ok(Self { reference, format })
    }

    /// Lets a decoder use it; call before the decoder is opened.
    pub fn lend(&self, context: &mut ffmpeg::codec::Context) {
        // SAFETY: the context is ours and not open yet; it takes a reference of its own to the device. `opaque` is the caller's field
        // and holds a plain number, not a pointer.
        unsafe {
            let context = context.as_mut_ptr();
            (*context).hw_device_ctx = ffi::av_buffer_ref(self.reference);
            (*context).opaque = ptr::without_provenance_mut(self.format as usize);
            (*context).get_format = Some(choose);
        }
    }

    /// The picture in plain memory; one that was decoded by the processor comes back as it is.
    ///
    /// # Errors
    /// The device failed.
    pub fn fetch(&self, picture: ffmpeg::frame::Video) -> Result<ffmpeg::frame::Video, ffmpeg::Error> {
        // SAFETY: reading a plain field of a frame we own.
        if unsafe { (*picture.as_ptr()).format } != self.format as i32 {
            return Ok(picture);
        }
        let mut plain = ffmpeg::frame::Video::empty();
        // SAFETY: both frames are ours; the destination is empty, so libav allocates it.
        let code = unsafe {
            match ffi::av_hwframe_transfer_data(plain.as_mut_ptr(), picture.as_ptr(), 0) {
                0.. => ffi::av_frame_copy_props(plain.as_mut_ptr(), picture.as_ptr()),
                code => code,
            }
        };
        if code < 0 { Err(ffmpeg::Error::from(code)) } else { Ok(plain) }
    }
}

/// Picks the device's format where it is offered; for a stream it cannot do (a profile, a size) what libav would pick.
unsafe extern "C" fn choose(
    context: *mut ffi::AVCodecContext,
    formats: *const ffi::AVPixelFormat,
) -> ffi::AVPixelFormat {
    // SAFETY: libav calls this with its own context and a list that ends with NONE.
    unsafe {
        let wanted = (*context).opaque.addr();
        let mut each = formats;
        while *each != ffi::AVPixelFormat::AV_PIX_FMT_NONE {
            if *each as usize == wanted {
                return *each;
            }
            each = each.add(1);
        }
        ffi::avcodec_default_get_format(context, formats)
    }
}

fn format_for(codec: ffmpeg::Codec, kind: ffi::AVHWDeviceType) -> Option<ffi::AVPixelFormat> {
    let by_device = ffi::AV_CODEC_HW_CONFIG_METHOD_HW_DEVICE_CTX as i32;
    (0..)
        // SAFETY: the codec is libav's own; the call answers null behind the last entry.
        .map_while(|i| unsafe { ffi::avcodec_get_hw_config(codec.as_ptr(), i).as_ref() })
        .find(|config| config.device_type == kind && config.methods & by_device != 0)
        .map(|config| config.pix_fmt)
}

fn known() -> Vec<String> {
    let mut kind = ffi::AVHWDeviceType::AV_HWDEVICE_TYPE_NONE;
    let mut names = Vec::new();
    loop {
        // SAFETY: both calls take and give plain values; a name is a static string.
        unsafe {
            kind = ffi::av_hwdevice_iterate_types(kind);
            if kind == ffi::AVHWDeviceType::AV_HWDEVICE_TYPE_NONE {
                return names;
            }
            names.push(CStr::from_ptr(ffi::av_hwdevice_get_type_name(kind)).to_string_lossy().into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ffmpeg::codec::{self, Id};

    fn refusal(name: &str, device: Option<&str>, id: Id) -> String {
        let wanted = HwAccel { name: name.to_owned(), device: device.map(str::to_owned) };
        Device::open(&wanted, codec::decoder::find(id).unwrap()).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_device_that_is_not_there_is_refused_with_the_reason() {
        let text = refusal("vaapi", Some("/nonexistent/renderD128"), Id::H264);
        assert!(text.contains("vaapi") && text.contains("hwaccel_device"), "{text}");
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let text = refusal("warp-drive", None, Id::H264);
        assert!(text.contains("warp-drive") && text.contains("vaapi"), "{text}");
        assert!(refusal("va\0api", None, Id::H264).contains("knows no hardware decoder"));
    }

    #[test]
    fn a_codec_the_device_does_not_do_is_refused() {
        let text = refusal("vaapi", None, Id::MSMPEG4V3);
        assert!(text.contains("does not decode"), "{text}");
    }
}
