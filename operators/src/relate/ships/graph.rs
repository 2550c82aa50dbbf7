//! A growing graph of commits: which label, per line, is the least that reaches a commit.
//!
//! *In*: edges from commit to parent and heads (a label put on a commit for a line), coming and going, a batch at a
//! time. *Out*: the commits whose labels changed. *Never*: a commit visited again whose label stays; a walk that a
//! cycle keeps going.
//!
//! A head reaches its commit and all ancestors of it; the least label that reaches a commit in a line is its label
//! there. What comes is spread with the least label first, so that each commit is set once. What goes clears the
//! region that may have had its label from there, which is then filled again from its rim.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;

use ahash::{HashMap, HashSet};
use smallvec::SmallVec;

/// Number of a commit.
pub(super) type Node = u32;
/// Number of a line.
pub(super) type Line = u32;

/// Values by line: few.
type ByLine<L> = SmallVec<[(Line, L); 1]>;

/// Commits, their parents and labels.
#[derive(Debug, Clone)]
pub(super) struct Graph<L> {
    names: HashMap<Arc<str>, Node>,
    nodes: Vec<Commit<L>>,
    free: Vec<Node>,
    /// How often each edge (commit, parent) was told; above 0.
    edges: HashMap<(Node, Node), i64>,
    /// Commits by the newest time of what tells of them.
    by_age: BTreeSet<(i64, Node)>,
    labels: usize,
}

#[derive(Debug, Clone)]
struct Commit<L> {
    name: Arc<str>,
    last: i64,
    parents: Vec<Node>,
    children: Vec<Node>,
    heads: Vec<(Line, L)>,
    /// Least labels that reach it from what was let go.
    kept: ByLine<L>,
    labels: ByLine<L>,
    /// Rows about it.
    rows: Vec<u32>,
}

/// What comes and goes in one batch.
#[derive(Debug)]
pub(super) struct Batch<L> {
    /// Commit, parent, change of weight.
    pub(super) edges: Vec<(Node, Node, i64)>,
    /// Heads that come.
    pub(super) come: Vec<(Node, Line, L)>,
    /// Heads that go.
    pub(super) go: Vec<(Node, Line, L)>,
}

impl<L> Default for Batch<L> {
    fn default() -> Self {
        Self { edges: Vec::new(), come: Vec::new(), go: Vec::new() }
    }
}

impl<L> Default for Graph<L> {
    fn default() -> Self {
        Self {
            names: HashMap::default(),
            nodes: Vec::new(),
            free: Vec::new(),
            edges: HashMap::default(),
            by_age: BTreeSet::new(),
            labels: 0,
        }
    }
}

/// The labels before a batch, where it changes them.
type Before<L> = HashMap<(Node, Line), Option<L>>;

/// What a graph is made of: its labels follow from it.
#[derive(Debug)]
pub(super) struct Bare<L> {
    /// Name, newest time of what tells of it, and what reaches it from what was let go.
    pub(super) commits: Vec<(Arc<str>, i64, Vec<(Line, L)>)>,
    /// Commit, parent, how often it was told.
    pub(super) edges: Vec<(Node, Node, i64)>,
}

impl<L: Ord + Clone> Graph<L> {
    /// What it is made of, its commits numbered without gaps; and the numbers they had.
    pub(super) fn bare(&self) -> (Bare<L>, HashMap<Node, Node>) {
        let mut numbers: HashMap<Node, Node> = HashMap::default();
        let mut commits = Vec::with_capacity(self.names.len());
        for (_, node) in &self.by_age {
            let commit = &self.nodes[*node as usize];
            numbers.insert(*node, Node::try_from(commits.len()).unwrap_or(Node::MAX));
            commits.push((Arc::clone(&commit.name), commit.last, commit.kept.to_vec()));
        }
        let edge = |((commit, parent), told): (&(Node, Node), &i64)| {
            Some((*numbers.get(commit)?, *numbers.get(parent)?, *told))
        };
        let edges = self.edges.iter().filter_map(edge).collect();
        (Bare { commits, edges }, numbers)
    }

    /// The graph again, with these heads. `None`: a number is of no commit.
    pub(super) fn of(bare: Bare<L>, heads: Vec<(Node, Line, L)>) -> Option<Self> {
        let mut graph = Self::default();
        let mut heap = BinaryHeap::new();
        let count = bare.commits.len();
        for (name, last, kept) in bare.commits {
            let node = graph.node(&name, last);
            heap.extend(kept.iter().map(|(line, label)| Reverse((label.clone(), node, *line))));
            graph.nodes[node as usize].kept = kept.into();
        }
        let known = |node: Node| (node as usize) < count;
        for (commit, parent, told) in bare.edges {
            if !known(commit) || !known(parent) {
                return None;
            }
            graph.edges.insert((commit, parent), told);
            graph.nodes[commit as usize].parents.push(parent);
            graph.nodes[parent as usize].children.push(commit);
        }
        for (node, line, label) in heads {
            if !known(node) {
                return None;
            }
            graph.nodes[node as usize].heads.push((line, label.clone()));
            heap.push(Reverse((label, node, line)));
        }
        graph.spread(heap, &mut HashMap::default());
        Some(graph)
    }

    /// Commits, edges and labels held.
    pub(super) fn held(&self) -> usize {
        self.names.len() + self.edges.len() + self.labels
    }

    /// The number of a commit that something of `time` tells of.
    pub(super) fn node(&mut self, name: &Arc<str>, time: i64) -> Node {
        if let Some(&node) = self.names.get(name) {
            let last = self.nodes[node as usize].last;
            if time > last {
                self.by_age.remove(&(last, node));
                self.by_age.insert((time, node));
                self.nodes[node as usize].last = time;
            }
            return node;
        }
        let commit = Commit {
            name: Arc::clone(name),
            last: time,
            parents: Vec::new(),
            children: Vec::new(),
            heads: Vec::new(),
            kept: SmallVec::new(),
            labels: SmallVec::new(),
            rows: Vec::new(),
        };
        let node = match self.free.pop() {
            Some(node) => {
                self.nodes[node as usize] = commit;
                node
            }
            None => {
                self.nodes.push(commit);
                // Far below: `max_held` bounds commits.
                Node::try_from(self.nodes.len() - 1).unwrap_or(Node::MAX)
            }
        };
        self.names.insert(Arc::clone(name), node);
        self.by_age.insert((time, node));
        node
    }

    /// The newest times of what tells of its commits.
    pub(super) fn times(&self) -> impl Iterator<Item = i64> {
        self.by_age.iter().map(|(time, _)| *time)
    }

    /// The number of a known commit.
    pub(super) fn find(&self, name: &str) -> Option<Node> {
        self.names.get(name).copied()
    }

    /// The labels of a commit.
    pub(super) fn labels(&self, node: Node) -> &[(Line, L)] {
        &self.nodes[node as usize].labels
    }

    /// The label of a commit in a line.
    pub(super) fn label(&self, node: Node, line: Line) -> Option<&L> {
        get(self.labels(node), line)
    }

    /// Rows about a commit.
    pub(super) fn rows(&self, node: Node) -> &[u32] {
        &self.nodes[node as usize].rows
    }

    pub(super) fn add_row(&mut self, node: Node, row: u32) {
        self.nodes[node as usize].rows.push(row);
    }

    pub(super) fn remove_row(&mut self, node: Node, row: u32) {
        self.nodes[node as usize].rows.retain(|known| *known != row);
    }

    /// Applies a batch; the commits whose labels are others now are added to `changed`.
    pub(super) fn apply(&mut self, batch: Batch<L>, changed: &mut BTreeSet<Node>) {
        let (come, go) = self.weigh(&batch.edges);
        let lost = self.region_of(&go, &batch.go);
        for (commit, parent) in go {
            remove(&mut self.nodes[commit as usize].parents, parent);
            remove(&mut self.nodes[parent as usize].children, commit);
        }
        for (node, line, label) in batch.go {
            let heads = &mut self.nodes[node as usize].heads;
            if let Some(at) = heads.iter().position(|head| head.0 == line && head.1 == label) {
                heads.swap_remove(at);
            }
        }
        let mut before: Before<L> = HashMap::default();
        for &(node, line) in &lost {
            let old = self.clear(node, line);
            before.insert((node, line), old);
        }
        let mut heap = BinaryHeap::new();
        for &(commit, parent) in &come {
            self.nodes[commit as usize].parents.push(parent);
            self.nodes[parent as usize].children.push(commit);
            for (line, label) in self.labels(commit) {
                heap.push(Reverse((label.clone(), parent, *line)));
            }
        }
        for (node, line, label) in batch.come {
            self.nodes[node as usize].heads.push((line, label.clone()));
            heap.push(Reverse((label, node, line)));
        }
        for (node, line) in lost {
            heap.extend(self.reaching(node, line).map(|label| Reverse((label, node, line))));
        }
        self.spread(heap, &mut before);
        let differs = |((node, line), old): ((Node, Line), Option<L>)| {
            (self.label(node, line) != old.as_ref()).then_some(node)
        };
        changed.extend(before.into_iter().filter_map(differs));
    }

    /// Changes the weights of edges; those that come and those that go.
    #[allow(clippy::type_complexity)]
    fn weigh(&mut self, edges: &[(Node, Node, i64)]) -> (Vec<(Node, Node)>, Vec<(Node, Node)>) {
        let (mut come, mut go) = (Vec::new(), Vec::new());
        for &(commit, parent, change) in edges {
            let old = self.edges.get(&(commit, parent)).copied().unwrap_or(0);
            // An edge that goes without having come was too old or one too many.
            let new = (old + change).max(0);
            match (old > 0, new > 0) {
                (false, true) => come.push((commit, parent)),
                (true, false) => go.push((commit, parent)),
                _ => {}
            }
            if new > 0 {
                self.edges.insert((commit, parent), new);
            } else {
                self.edges.remove(&(commit, parent));
            }
        }
        (come, go)
    }

    /// All that may have its label over one of these edges, or from one of these heads.
    fn region_of(&self, edges: &[(Node, Node)], heads: &[(Node, Line, L)]) -> HashSet<(Node, Line)> {
        let mut stack: Vec<(Node, Line)> = Vec::new();
        for &(commit, parent) in edges {
            let same = |(line, label): &&(Line, L)| self.label(parent, *line) == Some(label);
            stack.extend(self.labels(commit).iter().filter(same).map(|(line, _)| (parent, *line)));
        }
        let own = |(node, line, label): &&(Node, Line, L)| self.label(*node, *line) == Some(label);
        stack.extend(heads.iter().filter(own).map(|(node, line, _)| (*node, *line)));
        self.below(stack)
    }

    /// These and all below them with the same label.
    fn below(&self, mut stack: Vec<(Node, Line)>) -> HashSet<(Node, Line)> {
        let mut found: HashSet<(Node, Line)> = HashSet::default();
        while let Some((node, line)) = stack.pop() {
            if !found.insert((node, line)) {
                continue;
            }
            let label = self.label(node, line);
            let parents = self.nodes[node as usize].parents.iter();
            let same = parents.filter(|parent| self.label(**parent, line) == label);
            stack.extend(same.map(|parent| (*parent, line)));
        }
        found
    }

    /// Adds the commits that have the label of `node` from there.
    pub(super) fn region(&self, node: Node, line: Line, found: &mut BTreeSet<Node>) {
        found.extend(self.below(vec![(node, line)]).into_iter().map(|(node, _)| node));
    }

    /// The least label that reaches a commit from itself and its children.
    fn reaching(&self, node: Node, line: Line) -> Option<L> {
        let commit = &self.nodes[node as usize];
        let heads = commit.heads.iter().filter(|head| head.0 == line).map(|head| &head.1);
        let children = commit.children.iter().filter_map(|child| self.label(*child, line));
        heads.chain(get(&commit.kept, line)).chain(children).min().cloned()
    }

    fn spread(&mut self, mut heap: BinaryHeap<Reverse<(L, Node, Line)>>, before: &mut Before<L>) {
        while let Some(Reverse((label, node, line))) = heap.pop() {
            if self.label(node, line).is_some_and(|known| *known <= label) {
                continue;
            }
            for parent in &self.nodes[node as usize].parents {
                if self.label(*parent, line).is_none_or(|known| *known > label) {
                    heap.push(Reverse((label.clone(), *parent, line)));
                }
            }
            let old = self.set(node, line, label);
            before.entry((node, line)).or_insert(old);
        }
    }

    fn set(&mut self, node: Node, line: Line, label: L) -> Option<L> {
        let labels = &mut self.nodes[node as usize].labels;
        if let Some(known) = labels.iter_mut().find(|known| known.0 == line) {
            return Some(std::mem::replace(&mut known.1, label));
        }
        labels.push((line, label));
        self.labels += 1;
        None
    }

    fn clear(&mut self, node: Node, line: Line) -> Option<L> {
        let labels = &mut self.nodes[node as usize].labels;
        let at = labels.iter().position(|known| known.0 == line)?;
        self.labels -= 1;
        Some(labels.swap_remove(at).1)
    }

    /// A head is let go; what it reaches it still reaches.
    pub(super) fn keep(&mut self, node: Node, line: Line, label: &L) {
        let commit = &mut self.nodes[node as usize];
        commit.heads.retain(|head| head.0 != line || head.1 != *label);
        least(&mut commit.kept, line, label);
    }

    /// Lets go of commits that nothing since `bound` tells of and that no row is about.
    pub(super) fn forget(&mut self, bound: i64) {
        let old: Vec<Node> = self.by_age.range(..(bound, 0)).map(|(_, node)| *node).collect();
        for node in old {
            if !self.nodes[node as usize].rows.is_empty() {
                continue;
            }
            let commit = self.release(node);
            for parent in &commit.parents {
                for (line, label) in &commit.labels {
                    least(&mut self.nodes[*parent as usize].kept, *line, label);
                }
            }
        }
    }

    /// Lets go of a commit that nothing tells of any more.
    pub(super) fn tidy(&mut self, node: Node) {
        let commit = &self.nodes[node as usize];
        let known = self.names.get(&commit.name) == Some(&node);
        let used = [commit.parents.len(), commit.children.len(), commit.heads.len(), commit.rows.len()];
        if known && used.iter().all(|count| *count == 0) && commit.kept.is_empty() {
            self.release(node);
        }
    }

    /// Takes a commit out; its rim knows nothing of it any more.
    fn release(&mut self, node: Node) -> Commit<L> {
        let none = Commit {
            name: Arc::from(""),
            last: 0,
            parents: Vec::new(),
            children: Vec::new(),
            heads: Vec::new(),
            kept: SmallVec::new(),
            labels: SmallVec::new(),
            rows: Vec::new(),
        };
        let commit = std::mem::replace(&mut self.nodes[node as usize], none);
        self.names.remove(&commit.name);
        self.by_age.remove(&(commit.last, node));
        self.labels -= commit.labels.len();
        for parent in &commit.parents {
            remove(&mut self.nodes[*parent as usize].children, node);
            self.edges.remove(&(node, *parent));
        }
        for child in &commit.children {
            remove(&mut self.nodes[*child as usize].parents, node);
            self.edges.remove(&(*child, node));
        }
        self.free.push(node);
        commit
    }
}

fn get<L>(values: &[(Line, L)], line: Line) -> Option<&L> {
    values.iter().find(|known| known.0 == line).map(|known| &known.1)
}

fn least<L: Ord + Clone>(values: &mut ByLine<L>, line: Line, label: &L) {
    match values.iter_mut().find(|known| known.0 == line) {
        Some(known) if known.1 <= *label => {}
        Some(known) => known.1 = label.clone(),
        None => values.push((line, label.clone())),
    }
}

fn remove(nodes: &mut Vec<Node>, node: Node) {
    if let Some(at) = nodes.iter().position(|known| *known == node) {
        nodes.swap_remove(at);
    }
}
