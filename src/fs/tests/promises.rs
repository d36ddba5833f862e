//! Every sentence of SEMANTICS.md names the tests that prove it; they must exist.

use std::collections::BTreeSet;
use std::path::Path;

fn test_names(directory: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            test_names(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut lines = text.lines().map(str::trim);
            while let Some(line) = lines.next() {
                if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                    let function = lines.by_ref().find(|line| line.contains("fn "));
                    let name = function.and_then(|line| line.split("fn ").nth(1)?.split('(').next().map(str::to_owned));
                    names.extend(name);
                }
            }
        }
    }
}

#[test]
fn every_promise_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    test_names(&root.join("src"), &mut tests);
    test_names(&root.join("tests"), &mut tests);
    let text = std::fs::read_to_string(root.join("src/fs/SEMANTICS.md")).unwrap();
    let mut named = 0;
    for line in text.lines().filter(|line| line.starts_with("- ")) {
        let cited: Vec<&str> =
            line.split('`').skip(1).step_by(2).filter(|word| word.len() > 3 && word.contains('_') && !word.contains('.')).collect();
        assert!(!cited.is_empty(), "no test proves: {line}");
        for test in cited {
            assert!(tests.contains(test), "there is no test `{test}`, named by: {line}");
            named += 1;
        }
    }
    assert!(named > 20, "SEMANTICS.md was not read");
}
