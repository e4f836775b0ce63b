//! The setting for the listener of the metrics.

use std::net::SocketAddr;

use super::reader::Reader;

/// The address of the listener for metrics; `None` if there is none.
pub(super) fn listen(reader: &mut Reader<'_>) -> Option<SocketAddr> {
    const NAME: &str = "CARGA_METRICS_LISTEN";
    let text = reader.optional(NAME, None::<&str>)?;
    let address = text.parse();
    if address.is_err() {
        reader.fault(format!(
            "{NAME}={text}: must be an IP address with a port, such as 127.0.0.1:9464; leave it empty for no listener"
        ));
    }
    address.ok()
}

#[cfg(test)]
mod tests {
    use crate::settings::{Mode, Settings, SettingsError};

    fn listen(value: &str) -> Result<Option<std::net::SocketAddr>, SettingsError> {
        let lookup = |name: &str| (name == "CARGA_METRICS_LISTEN").then(|| value.to_owned());
        let settings = Settings::read(Mode::Embedded, &lookup)?;
        Ok(settings.metrics_listen)
    }

    #[test]
    fn there_is_no_listener_for_metrics_unless_an_address_is_set() {
        assert_eq!(listen("").unwrap(), None);
        let address = listen("127.0.0.1:9464").unwrap();
        assert_eq!(address, Some(([127, 0, 0, 1], 9464).into()));
        for wrong in ["9464", "localhost:9464", "127.0.0.1"] {
            let fault = listen(wrong).unwrap_err().to_string();
            let expected = format!("CARGA_METRICS_LISTEN={wrong}: must be an IP address");
            assert!(fault.contains(&expected), "{fault}");
        }
    }
}
