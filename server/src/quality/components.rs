//! What hangs together: the connected components of a graph.

use std::collections::HashMap;

/// Disjoint sets of the numbers from 0, joined by size, with path halving.
#[derive(Debug)]
pub(crate) struct DisjointSets {
    parent: Vec<u32>,
    size: Vec<u32>,
}

impl DisjointSets {
    pub(crate) fn new(n: usize) -> Self {
        Self {
            parent: (0..n as u32).collect(),
            size: vec![1; n],
        }
    }

    pub(crate) fn root(&mut self, mut node: u32) -> u32 {
        while self.parent[node as usize] != node {
            let grandparent = self.parent[self.parent[node as usize] as usize];
            self.parent[node as usize] = grandparent;
            node = grandparent;
        }
        node
    }

    pub(crate) fn join(&mut self, a: u32, b: u32) {
        let (mut a, mut b) = (self.root(a), self.root(b));
        if a == b {
            return;
        }
        if self.size[a as usize] < self.size[b as usize] {
            (a, b) = (b, a);
        }
        self.parent[b as usize] = a;
        self.size[a as usize] += self.size[b as usize];
    }

    /// The component of each node, numbered from 0 in order of appearance, and their number.
    pub(crate) fn components(&mut self) -> (Vec<u32>, usize) {
        let mut names: HashMap<u32, u32> = HashMap::new();
        let mut components = Vec::with_capacity(self.parent.len());
        for node in 0..self.parent.len() as u32 {
            let next = names.len() as u32;
            components.push(*names.entry(self.root(node)).or_insert(next));
        }
        (components, names.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_by_a_chain_is_one_component() {
        let mut sets = DisjointSets::new(5);
        sets.join(0, 3);
        sets.join(4, 3);
        assert_eq!(sets.components(), (vec![0, 1, 2, 0, 0], 3));
        assert_eq!(sets.root(4), sets.root(0));
    }
}
