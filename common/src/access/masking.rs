//! Keys in other texts.

use std::borrow::Cow;

use super::key::{ID_CHARS, PREFIX, is_base62};

/// The path of a request for the log: in each segment, everything after `carga_<id>_` is `***`.
/// Somebody may have put a whole key into a path, and the log must not show it.
pub fn without_secrets(path: &str) -> Cow<'_, str> {
    if !path.contains(PREFIX) {
        return Cow::Borrowed(path);
    }
    let segments: Vec<String> = path.split('/').map(masked).collect();
    Cow::Owned(segments.join("/"))
}

fn masked(segment: &str) -> String {
    let secret = segment.match_indices(PREFIX).find_map(|(start, _)| {
        let id = start + PREFIX.len()..start + PREFIX.len() + ID_CHARS;
        let is_key = segment.get(id.clone()).is_some_and(is_base62)
            && segment.get(id.end..=id.end) == Some("_");
        is_key.then_some(id.end + 1)
    });
    match secret {
        Some(secret) => format!("{}***", &segment[..secret]),
        None => segment.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::ApiKey;

    #[test]
    fn the_secret_of_a_key_in_a_path_is_masked() {
        let key = ApiKey::generate().unwrap();
        let (key, id) = (key.expose(), key.id());
        for (path, expected) in [
            (format!("/keys/{key}"), format!("/keys/carga_{id}_***")),
            (format!("/keys/{key}x%20"), format!("/keys/carga_{id}_***")),
            (format!("/{key}/a"), format!("/carga_{id}_***/a")),
            (format!("/a={key}"), format!("/a=carga_{id}_***")),
            (format!("/carga_{key}"), format!("/carga_carga_{id}_***")),
            (key[..30].to_owned(), format!("carga_{id}_***")),
        ] {
            assert_eq!(without_secrets(&path), expected);
        }
    }

    #[test]
    fn other_paths_stay_as_they_are() {
        for path in [
            "/uploads",
            "/keys/0123456789ab",
            "/datasets/carga_sales_2026",
            "/datasets/carga_éééééé_x",
            "/carga_0123456789ab",
        ] {
            assert_eq!(without_secrets(path), path);
        }
    }
}
