//! Parses `--header` and `--resolve`, in the spelling of ORAS and curl.

use std::net::{IpAddr, SocketAddr};

/// `NAME: VALUE`.
///
/// # Errors
/// There is no colon.
pub fn header(text: &str) -> Result<(String, String), String> {
    // The value may be a secret and stays out of the message.
    let (name, value) = text.split_once(':').ok_or("write the header as `NAME: VALUE`")?;
    match name.trim() {
        "" => Err("write the header as `NAME: VALUE`".to_owned()),
        name => Ok((name.to_owned(), value.trim().to_owned())),
    }
}

/// `HOST:PORT:ADDRESS[:PORT]`. The address's port must be that of the host: HTTP has no other way.
///
/// # Errors
/// Any other form.
pub fn address(text: &str) -> Result<(String, SocketAddr), String> {
    let form = || format!("`{}` is not HOST:PORT:ADDRESS", text.escape_debug());
    let (host, rest) = text.split_once(':').filter(|(host, _)| !host.is_empty()).ok_or_else(form)?;
    let (port, address) = rest.split_once(':').ok_or_else(form)?;
    let port: u16 = port.parse().map_err(|_| form())?;
    let plain = address.trim_start_matches('[').trim_end_matches(']');
    let address = match (plain.parse::<IpAddr>(), address.parse::<SocketAddr>()) {
        (Ok(ip), _) => SocketAddr::new(ip, port),
        (_, Ok(address)) => address,
        _ => return Err(form()),
    };
    // For a URL with a port, the client ignores the port of an override address.
    if address.port() != port && port != 443 && port != 80 {
        return Err(format!("`{}`: the port of the address must be {port}", text.escape_debug()));
    }
    Ok((host.to_ascii_lowercase(), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_addresses_are_written_as_in_other_tools() {
        assert_eq!(header("X-Trace:  a: b "), Ok(("X-Trace".to_owned(), "a: b".to_owned())));
        assert!(header("X-Trace").is_err() && header(": x").is_err());
        let parsed = |text: &str| address(text).map(|(host, address)| format!("{host} {address}"));
        assert_eq!(parsed("Reg.io:443:10.0.0.1").unwrap(), "reg.io 10.0.0.1:443");
        assert_eq!(parsed("reg.io:443:10.0.0.1:8443").unwrap(), "reg.io 10.0.0.1:8443");
        assert_eq!(parsed("reg.io:5000:[::1]").unwrap(), "reg.io [::1]:5000");
        for bad in ["reg.io", "reg.io:443", "reg.io:x:10.0.0.1", "reg.io:443:other.io", ":443:10.0.0.1", "reg.io:5000:10.0.0.1:6000"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
