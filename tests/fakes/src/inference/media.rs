//! Images and other attachments inside a request.

use base64::{Engine, engine::general_purpose::STANDARD};

/// The media types of images that both providers take.
pub(crate) const IMAGE_TYPES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];

/// What is wrong with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadImage {
    /// Its media type is not one of [`IMAGE_TYPES`].
    MediaType,
    /// Its data is not base64, or empty.
    Base64,
    /// Its first bytes are not those of its media type.
    Content,
}

/// Checks an image that is sent within the request.
pub(crate) fn check_image(media_type: &str, data: &str) -> Result<(), BadImage> {
    if !IMAGE_TYPES.contains(&media_type) {
        return Err(BadImage::MediaType);
    }
    let bytes = decode(data).ok_or(BadImage::Base64)?;
    let fits = match media_type {
        "image/jpeg" => bytes.starts_with(&[0xff, 0xd8, 0xff]),
        "image/png" => bytes.starts_with(b"\x89PNG\r\n\x1a\n"),
        "image/gif" => bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a"),
        _ => bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP"),
    };
    if fits { Ok(()) } else { Err(BadImage::Content) }
}

/// The media type and the data of a `data:` URL in base64.
pub(crate) fn split_data_url(url: &str) -> Option<(&str, &str)> {
    let (media_type, data) = url.strip_prefix("data:")?.split_once(',')?;
    let media_type = media_type.strip_suffix(";base64")?;
    Some((media_type, data))
}

/// What base64 stands for, unless it is none or of nothing.
pub(crate) fn decode(data: &str) -> Option<Vec<u8>> {
    let bytes = STANDARD.decode(data).ok()?;
    (!bytes.is_empty()).then_some(bytes)
}

/// Whether it is an http or https URL.
pub(crate) fn is_web_url(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}
