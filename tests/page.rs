//! The pages of `ocifs serve` in a real browser: browsing, searching, downloading, and names that try to be markup.

#[path = "support/browser.rs"]
mod browser;
#[allow(dead_code)]
#[path = "support/skip.rs"]
mod skip;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use browser::{Browser, NEEDS, saved};
use tempfile::TempDir;

const EVIL: &str = "<img src=x onerror=alert(1)>";

/// `ocifs serve` with a store, in its own directories.
struct Served {
    home: TempDir,
    process: Child,
    url: String,
}

impl Served {
    fn start() -> Self {
        let home = TempDir::new().unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_ocifs"), "serve", "--listen", "127.0.0.1:0", "--store"]);
        command.arg(home.path().join("store")).env("HOME", home.path()).env("XDG_CACHE_HOME", home.path().join("cache"));
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").expect("the server listens").to_owned();
        Self { home, process, url }
    }

    fn host(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    fn push(&self, reference: &str, directory: &Path) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ocifs"));
        command
            .args(["push", "--quiet", &format!("{}/{reference}", self.host()), "."])
            .current_dir(directory)
            .env("HOME", self.home.path());
        let output = command.env("XDG_CACHE_HOME", self.home.path().join("cache")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// A server with a few repositories.
    fn with_content() -> Self {
        let served = Self::start();
        let files = served.home.path().join("files");
        std::fs::create_dir_all(files.join("docs/deep")).unwrap();
        for (name, text) in [
            ("docs/readme.txt", "Hello from a file"),
            ("docs/deep/numbers.txt", "0123456789"),
            (EVIL, "not a picture"),
            ("page.html", "<script>alert(1)</script>"),
            ("picture.svg", "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"),
        ] {
            std::fs::write(files.join(name), text).unwrap();
        }
        std::fs::write(files.join("model.bin"), vec![7; 3 << 20]).unwrap();
        for reference in ["team/app:v1.0.0", "team/app:v1.1.0", "team/tools/inner-circle:latest", "other:v1"] {
            served.push(reference, &files);
        }
        served
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A screenshot for people, in the directory named by `OCIFS_TEST_PICTURES`.
fn picture(browser: &Browser, name: &str) {
    if let Some(directory) = std::env::var_os("OCIFS_TEST_PICTURES") {
        std::fs::write(Path::new(&directory).join(format!("{name}.png")), browser.picture()).unwrap();
    }
}

#[test]
fn people_browse_search_and_download() {
    if skip::lacks(&NEEDS) {
        return;
    }
    let served = Served::with_content();
    let browser = Browser::start(served.home.path());

    browser.open(&served.url);
    browser.type_in(&browser.one("input[name=q]"), "tools circle");
    browser.click(&browser.one("form button"));
    assert!(browser.url().contains("?q=tools"), "{}", browser.url());
    let found: Vec<String> = browser.all(".names a").iter().map(|link| browser.text(link)).collect();
    assert_eq!(found, ["team/tools/inner-circle"]);

    browser.click(&browser.link("ocifs"));
    browser.click(&browser.link("team/app"));
    browser.click(&browser.link("v1.1.0"));
    assert!(browser.url().ends_with("/files/team/app:v1.1.0/"), "{}", browser.url());
    browser.click(&browser.link("docs/"));
    browser.click(&browser.link("readme.txt"));
    assert_eq!(browser.text(&browser.one("body")), "Hello from a file");

    // No link of a page is broken.
    browser.open(&format!("{}/files/team/app:v1.1.0/docs/", served.url));
    browser.click(&browser.link("deep/"));
    let numbers = browser.property(&browser.link("numbers.txt"), "href");
    browser.send_header("range", "bytes=3-6");
    browser.open(&numbers);
    assert_eq!(browser.text(&browser.one("body")), "3456");
}

#[test]
fn untrusted_files_are_saved_and_their_names_are_text() {
    if skip::lacks(&NEEDS) {
        return;
    }
    let served = Served::with_content();
    let downloads = served.home.path().join("downloads");
    std::fs::create_dir(&downloads).unwrap();
    let browser = Browser::start(&downloads);
    let root = format!("{}/files/team/app:v1.0.0/", served.url);
    browser.open(&root);
    assert!(browser.all("img").is_empty() && browser.all("script").is_empty());
    let link = browser.link(EVIL);
    browser.click(&link);
    assert!(!browser.has_dialog());
    for name in ["page.html", "picture.svg", "model.bin"] {
        browser.open(&root);
        browser.click(&browser.link(name));
        let file = std::fs::read(served.home.path().join("files").join(name)).unwrap();
        assert_eq!(saved(&downloads.join(name)), file, "{name}");
        assert!(!browser.has_dialog() && browser.url() == root, "{name}");
    }
    browser.open(&format!("{}/?q={}", served.url, EVIL.replace(' ', "%20")));
    assert!(browser.all("img").is_empty() && !browser.has_dialog());
    assert_eq!(browser.property(&browser.one("input[name=q]"), "value"), EVIL);
}

#[test]
fn pages_fit_narrow_and_wide_windows_in_light_and_dark() {
    if skip::lacks(&NEEDS) {
        return;
    }
    let served = Served::with_content();
    let browser = Browser::start(served.home.path());
    let pages = [
        ("home", String::new()),
        ("tags", "/files/team/app".to_owned()),
        ("artifact", "/files/team/app:v1.0.0/".to_owned()),
        ("folder", "/files/team/app:v1.0.0/docs/".to_owned()),
        ("missing", "/files/team/app:none/".to_owned()),
    ];
    for (name, path) in pages {
        let mut backgrounds = Vec::new();
        for (width, scheme) in [(400, "light"), (1400, "light"), (400, "dark"), (1400, "dark")] {
            browser.look(width, scheme);
            browser.open(&format!("{}{path}", served.url));
            let overflow = browser.run("return document.documentElement.scrollWidth - window.innerWidth").as_i64();
            assert!(overflow.is_some_and(|overflow| overflow <= 0), "{name} at {width}: {overflow:?}");
            backgrounds.push(browser.run("return getComputedStyle(document.body).backgroundColor").as_str().unwrap().to_owned());
            picture(&browser, &format!("{name}-{width}-{scheme}"));
        }
        assert!(backgrounds[0] == backgrounds[1] && backgrounds[1] != backgrounds[2], "{name}: {backgrounds:?}");
    }
}
