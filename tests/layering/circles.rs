//! Circles of files inside a module of the crate: files that reach each other through what they import. `mod` lines, re-exports and
//! tests do not count; an import through a re-export leads to the file behind it.

use std::collections::{BTreeMap, BTreeSet};

use super::text;

/// The path of a file's module in the crate: `["cache", "store"]`.
type Module = Vec<String>;

/// One file: code without comments, literals and tests.
pub struct File {
    module: Module,
    code: String,
}

impl File {
    /// A file by its path below `src` and its blanked code; lines from `tests_from` on are tests.
    pub fn new(path: &str, code: &str, tests_from: usize) -> Self {
        let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
        let code: Vec<&str> = code.lines().take(tests_from).collect();
        Self { module: path.split('/').map(str::to_owned).collect(), code: code.join("\n") }
    }
}

/// Groups of files that reach each other, each as a list of its imports: `a → b`.
pub fn circles(files: &[File]) -> Vec<Vec<String>> {
    let modules: BTreeSet<&Module> = files.iter().map(|file| &file.module).collect();
    let mut exports: BTreeMap<(Module, String), Module> = BTreeMap::new();
    let mut imports: Vec<(&Module, Module)> = Vec::new();
    for file in files {
        for import in text::imports(&file.code) {
            let Some(target) = absolute(&file.module, &import.path, &modules) else { continue };
            if import.is_public {
                exports.insert((file.module.clone(), import.name), target);
            } else {
                imports.push((&file.module, target));
            }
        }
    }
    let mut edges: BTreeMap<&Module, BTreeSet<&Module>> = BTreeMap::new();
    for (from, target) in imports {
        if let Some(to) = file_of(target, &modules, &exports).filter(|to| *to != from) {
            edges.entry(from).or_default().insert(to);
        }
    }
    groups(&edges)
}

/// A path from the crate root; `None` if it leads elsewhere.
fn absolute(module: &Module, path: &[String], modules: &BTreeSet<&Module>) -> Option<Module> {
    let climbs = path.iter().take_while(|part| *part == "super").count();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([module, &path[1..]].concat()),
        "super" => Some([module.get(..module.len().checked_sub(climbs)?)?, &path[climbs..]].concat()),
        child => {
            let inside = [module.as_slice(), &[child.to_owned()]].concat();
            modules.contains(&inside).then(|| [module, path].concat())
        }
    }
}

/// The file that a path leads to, through re-exports.
fn file_of<'a>(mut path: Module, modules: &BTreeSet<&'a Module>, exports: &BTreeMap<(Module, String), Module>) -> Option<&'a Module> {
    // Re-export chains are never longer than this.
    for _ in 0..8 {
        let length = (1..=path.len()).rev().find(|length| modules.contains(&path[..*length].to_vec()))?;
        let file = path[..length].to_vec();
        match path.get(length).and_then(|name| exports.get(&(file.clone(), name.clone()))) {
            Some(behind) => path = [behind.as_slice(), &path[length + 1..]].concat(),
            None => return modules.get(&file).copied(),
        }
    }
    None
}

fn groups(edges: &BTreeMap<&Module, BTreeSet<&Module>>) -> Vec<Vec<String>> {
    let reached = |from: &Module| {
        let mut seen: BTreeSet<&Module> = BTreeSet::new();
        let mut open: Vec<&Module> = edges.get(from).into_iter().flatten().copied().collect();
        while let Some(next) = open.pop() {
            if seen.insert(next) {
                open.extend(edges.get(next).into_iter().flatten());
            }
        }
        seen
    };
    let reach: BTreeMap<&Module, BTreeSet<&Module>> = edges.keys().map(|from| (*from, reached(from))).collect();
    let mut groups: BTreeSet<Vec<&Module>> = BTreeSet::new();
    for (from, seen) in reach.iter().filter(|(from, seen)| seen.contains(*from)) {
        groups.insert(seen.iter().copied().filter(|to| reach.get(to).is_some_and(|back| back.contains(from))).collect());
    }
    let name = |module: &Module| module.join("/");
    let arrows = |group: &Vec<&Module>| {
        let inside = |from: &&Module| edges[*from].iter().filter(|to| group.contains(to)).map(|to| name(to)).collect::<Vec<_>>().join(", ");
        group.iter().map(|from| format!("{} → {}", name(from), inside(from))).collect()
    };
    groups.iter().map(arrows).collect()
}
