//! The header `WWW-Authenticate`: challenges and their parameters, with quoted strings and several per line.
//!
//! <https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1>. Malformed text yields fewer challenges, never a wrong one.

/// Longest header that is parsed, in bytes.
const LIMIT: usize = 32 << 10;

/// A challenge of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password with every request.
    Basic,
    /// A token from a token server.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// The challenges that we can answer, from all headers, strongest first.
pub(super) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = headers.filter(|header| header.len() <= LIMIT).flat_map(one).collect();
    challenges.sort_by_key(|challenge| matches!(challenge, Challenge::Basic));
    challenges
}

fn one(header: &str) -> Vec<Challenge> {
    let mut parser = Parser { rest: header };
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    loop {
        parser.skip(|character| character == ',' || character.is_ascii_whitespace());
        let Some(word) = parser.token() else { break };
        parser.skip(|character| character == ' ' || character == '\t');
        let parameters = found.last_mut().map(|(_, parameters)| parameters);
        match (parser.rest.strip_prefix('='), parameters) {
            (Some(rest), Some(parameters)) => {
                parser.rest = rest;
                parser.skip(|character| character == ' ' || character == '\t');
                match parser.value() {
                    Some(value) => parameters.push((word.to_ascii_lowercase(), value)),
                    // The padding of a token68, as in Negotiate: skip the rest of it.
                    None => parser.skip(|character| character == '='),
                }
            }
            (Some(_), None) => break,
            (None, _) => found.push((word.to_ascii_lowercase(), Vec::new())),
        }
    }
    found.into_iter().filter_map(|(scheme, parameters)| challenge(&scheme, parameters)).collect()
}

fn challenge(scheme: &str, parameters: Vec<(String, String)>) -> Option<Challenge> {
    // If a parameter is given twice, the first one counts.
    let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer { realm: get("realm")?, service: get("service"), scope: get("scope") }),
        _ => None,
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip(&mut self, what: impl Fn(char) -> bool) {
        self.rest = self.rest.trim_start_matches(what);
    }

    fn token(&mut self) -> Option<&'a str> {
        let tokens = |character: char| character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:/".contains(character);
        let end = self.rest.find(|character| !tokens(character)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!token.is_empty()).then_some(token)
    }

    fn value(&mut self) -> Option<String> {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            return self.token().map(str::to_owned);
        };
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.rest = quoted.get(at + 1..).unwrap_or_default();
                    return Some(value);
                }
                '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
                other => value.push(other),
            }
        }
        self.rest = "";
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned), scope: scope.map(str::to_owned) }
    }

    #[test]
    fn the_forms_that_registries_send_are_understood() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/a:pull,push""#;
        assert_eq!(
            parse([hub].into_iter()),
            [bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:library/a:pull,push"))]
        );
        assert_eq!(parse([r#"Basic realm="Registry Realm""#].into_iter()), [Challenge::Basic]);
        assert_eq!(parse([r#"bearer realm = "https://x/t" , error="invalid_token""#].into_iter()), [bearer("https://x/t", None, None)]);
        assert_eq!(parse([r#"Bearer realm="a\"b\\c""#].into_iter()), [bearer("a\"b\\c", None, None)]);
        assert_eq!(parse(["Bearer realm=https://x/t,service=s"].into_iter()), [bearer("https://x/t", Some("s"), None)]);
    }

    #[test]
    fn multiple_challenges_are_split_and_bearer_is_preferred() {
        let one = r#"Negotiate abc==, Basic realm="a, b", Bearer realm="https://x/t",service="s""#;
        assert_eq!(parse([one].into_iter()), [bearer("https://x/t", Some("s"), None), Challenge::Basic]);
        assert_eq!(parse(["Basic", r#"Bearer realm="r""#].into_iter()), [bearer("r", None, None), Challenge::Basic]);
    }

    #[test]
    fn garbage_gives_no_challenge_and_no_panic() {
        let long = format!("Bearer realm=\"{}\"", "x".repeat(1 << 20));
        for text in ["", ",,,", "=", "Bearer", "Bearer realm", r#"Bearer realm="unterminated"#, "é", "Bearer realm=\u{1}", "==a==", &long]
        {
            assert_eq!(parse([text].into_iter()), [], "{}", text.chars().take(40).collect::<String>());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(text in ".{0,200}") {
            parse([text.as_str()].into_iter());
        }
    }
}
