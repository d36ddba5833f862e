//! Headless Chromium (Debian), driven over WebDriver (<https://www.w3.org/TR/webdriver2/>) with the few requests the tests need. Driver and browser
//! end when their value is dropped.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use reqwest::Method;
use serde_json::{Value, json};

use crate::skip::Need;

/// The required programs.
pub const NEEDS: [Need; 2] = [Need::Tool("chromium"), Need::Tool("chromedriver")];
/// The key of an element in JSON, per the standard.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// How long to wait for a page or download.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one window.
pub struct Browser {
    driver: Child,
    session: String,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

/// An element of the page.
pub struct Element(String);

impl Browser {
    /// Starts a browser that saves files in `downloads`.
    pub fn start(downloads: &Path) -> Self {
        let mut driver = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "chromedriver", "--port=0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("setpriv and chromedriver run");
        let mut log = BufReader::new(driver.stdout.take().unwrap());
        let mut line = String::new();
        let port = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "chromedriver ended before it listened");
            if let Some((_, rest)) = line.split_once("started successfully on port ") {
                break rest.trim_end().trim_end_matches('.').to_owned();
            }
        };
        // A full pipe would stop the driver.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut browser = Self { driver, session: format!("http://127.0.0.1:{port}"), client, runtime };
        let options = json!({
            // The sandbox needs privileges that root lacks in a container; only the test's own pages are opened.
            "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"],
            "prefs": { "download.default_directory": downloads, "download.prompt_for_download": false },
        });
        let capabilities = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options } } });
        let session = browser.post("/session", capabilities);
        browser.session = format!("{}/session/{}", browser.session, session["sessionId"].as_str().unwrap());
        browser
    }

    /// One request; returns the value or the driver's error.
    fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Value> {
        let mut request = self.client.request(method, format!("{}{path}", self.session));
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = self.runtime.block_on(async {
            let answer = request.send().await.expect("chromedriver answers");
            (answer.status().is_success(), answer.text().await.unwrap())
        });
        let value = serde_json::from_str::<Value>(&answer.1).unwrap()["value"].take();
        if answer.0 { Ok(value) } else { Err(value) }
    }

    fn post(&self, path: &str, body: Value) -> Value {
        self.send(Method::POST, path, Some(body)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn get(&self, path: &str) -> Value {
        self.send(Method::GET, path, None).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Opens an address.
    pub fn open(&self, url: &str) {
        self.post("/url", json!({ "url": url }));
    }

    /// The address of the page.
    pub fn url(&self) -> String {
        self.get("/url").as_str().unwrap().to_owned()
    }

    /// The elements of a CSS selector.
    pub fn all(&self, selector: &str) -> Vec<Element> {
        let found = self.post("/elements", json!({ "using": "css selector", "value": selector }));
        found.as_array().unwrap().iter().map(|element| Element(element[ELEMENT].as_str().unwrap().to_owned())).collect()
    }

    /// The link with this text.
    pub fn link(&self, text: &str) -> Element {
        let found = self.post("/element", json!({ "using": "link text", "value": text }));
        Element(found[ELEMENT].as_str().unwrap().to_owned())
    }

    /// The first element of a CSS selector.
    pub fn one(&self, selector: &str) -> Element {
        self.all(selector).into_iter().next().unwrap_or_else(|| panic!("{} has no {selector}", self.url()))
    }

    /// The visible text of an element.
    pub fn text(&self, element: &Element) -> String {
        self.get(&format!("/element/{}/text", element.0)).as_str().unwrap().to_owned()
    }

    /// A property of an element.
    pub fn property(&self, element: &Element, name: &str) -> String {
        self.get(&format!("/element/{}/property/{name}", element.0)).as_str().unwrap().to_owned()
    }

    /// Clicks.
    pub fn click(&self, element: &Element) {
        self.post(&format!("/element/{}/click", element.0), json!({}));
    }

    /// Types.
    pub fn type_in(&self, element: &Element, text: &str) {
        self.post(&format!("/element/{}/value", element.0), json!({ "text": text }));
    }

    /// The result of JavaScript in the page.
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", json!({ "script": script, "args": [] }))
    }

    /// Whether a script of a page has opened a dialog.
    pub fn has_dialog(&self) -> bool {
        self.send(Method::GET, "/alert/text", None).is_ok()
    }

    /// Makes the page this wide, in pixels, in light or in dark.
    pub fn look(&self, width: u32, scheme: &str) {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        for (command, parameters) in [("Emulation.setDeviceMetricsOverride", size), ("Emulation.setEmulatedMedia", scheme)] {
            self.post("/goog/cdp/execute", json!({ "cmd": command, "params": parameters }));
        }
    }

    /// Sends this header with every request from now on.
    pub fn send_header(&self, name: &str, value: &str) {
        self.post("/goog/cdp/execute", json!({ "cmd": "Network.enable", "params": {} }));
        let parameters = json!({ "headers": { name: value } });
        self.post("/goog/cdp/execute", json!({ "cmd": "Network.setExtraHTTPHeaders", "params": parameters }));
    }

    /// A screenshot of the page, PNG.
    pub fn picture(&self) -> Vec<u8> {
        base64::engine::general_purpose::STANDARD.decode(self.get("/screenshot").as_str().unwrap()).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.send(Method::DELETE, "", None);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Waits for a file being saved; returns its bytes.
pub fn saved(file: &Path) -> Vec<u8> {
    let began = Instant::now();
    while !file.exists() {
        assert!(began.elapsed() < PATIENCE, "{} was not saved", file.display());
        std::thread::sleep(Duration::from_millis(50));
    }
    std::fs::read(file).unwrap()
}
