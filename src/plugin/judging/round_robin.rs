//! Who comes next: components take turns, and of one component its jobs do, so that many jobs of one delay
//! another's by one turn. Which of its jobs may have the turn is for others to say: it may be none for now.
//!
//! Must not know: what a job is.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Jobs by component, in the order of their turns.
#[derive(Debug)]
pub struct RoundRobin<T> {
    /// Components with jobs, the next first; the one at work is not among them.
    order: VecDeque<Arc<str>>,
    jobs: HashMap<Arc<str>, VecDeque<T>>,
    active: Option<Arc<str>>,
}

impl<T> Default for RoundRobin<T> {
    fn default() -> Self {
        Self { order: VecDeque::new(), jobs: HashMap::new(), active: None }
    }
}

impl<T> RoundRobin<T> {
    /// A job of a component came.
    pub fn push(&mut self, component: &Arc<str>, job: T) {
        let jobs = self.jobs.entry(Arc::clone(component)).or_default();
        jobs.push_back(job);
        if jobs.len() == 1 && self.active.as_ref() != Some(component) {
            self.order.push_back(Arc::clone(component));
        }
    }

    /// The job whose turn it is: of the first component from whose jobs one is chosen. [`Rounds::end_turn`]
    /// must be told when the turn is over, before the next begins.
    pub fn pop(&mut self, choose: impl Fn(&VecDeque<T>) -> Option<usize>) -> Option<T> {
        let chosen = |(place, component)| Some((place, choose(self.jobs.get(component)?)?));
        let (place, at) = self.order.iter().enumerate().find_map(chosen)?;
        let component = self.order.remove(place)?;
        let jobs = self.jobs.get_mut(&component)?;
        let job = jobs.remove(at);
        if jobs.is_empty() {
            self.jobs.remove(&component);
        }
        self.active = Some(component);
        job
    }

    /// The turn is over. Only now does its component stand in line again: behind those that came meanwhile.
    /// An unfinished job goes behind the other jobs of its component.
    pub fn end_turn(&mut self, unfinished: Option<T>) {
        let Some(component) = self.active.take() else { return };
        if let Some(job) = unfinished {
            self.jobs.entry(Arc::clone(&component)).or_default().push_back(job);
        }
        if self.jobs.contains_key(&component) {
            self.order.push_back(component);
        }
    }

    /// Whether a component that is not at work has a job that may have its turn.
    #[must_use]
    pub fn has_ready(&self, choose: impl Fn(&VecDeque<T>) -> Option<usize>) -> bool {
        self.order.iter().filter_map(|component| self.jobs.get(component)).any(|jobs| choose(jobs).is_some())
    }

    /// The jobs that wait, by component.
    pub fn waiting(&self) -> impl Iterator<Item = &VecDeque<T>> {
        self.jobs.values()
    }

    /// Takes out the jobs that are not worth keeping.
    pub fn remove_unless(&mut self, keep: impl Fn(&T) -> bool) -> Vec<T> {
        let mut gone = Vec::new();
        for jobs in self.jobs.values_mut() {
            let (kept, not): (VecDeque<T>, VecDeque<T>) = std::mem::take(jobs).into_iter().partition(&keep);
            *jobs = kept;
            gone.extend(not);
        }
        self.jobs.retain(|_, jobs| !jobs.is_empty());
        self.order.retain(|component| self.jobs.contains_key(component));
        gone
    }

    /// Everything that waits, and nothing after that.
    pub fn drain(&mut self) -> Vec<T> {
        self.order.clear();
        self.jobs.drain().flat_map(|(_, jobs)| jobs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first<T>(_: &VecDeque<T>) -> Option<usize> {
        Some(0)
    }

    fn turn(rounds: &mut RoundRobin<&'static str>) -> &'static str {
        let job = rounds.pop(first).unwrap_or("none");
        rounds.end_turn(None);
        job
    }

    #[test]
    fn many_jobs_of_one_delay_another_by_one_turn() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut rounds = RoundRobin::default();
        ["a1", "a2", "a3"].into_iter().for_each(|job| rounds.push(&a, job));
        assert_eq!(rounds.pop(first), Some("a1"));
        rounds.push(&b, "b1");
        assert!(rounds.has_ready(first));
        rounds.end_turn(Some("a1 again"));
        assert_eq!([(); 5].map(|()| turn(&mut rounds)), ["b1", "a2", "a3", "a1 again", "none"]);
        assert!(!rounds.has_ready(first) && rounds.jobs.is_empty());
    }

    #[test]
    fn components_go_round() {
        let names: [Arc<str>; 3] = ["a".into(), "b".into(), "c".into()];
        let mut rounds = RoundRobin::default();
        for (name, jobs) in names.iter().zip([["a1", "a2"], ["b1", "b2"], ["c1", "c2"]]) {
            jobs.into_iter().for_each(|job| rounds.push(name, job));
        }
        assert_eq!([(); 6].map(|()| turn(&mut rounds)), ["a1", "b1", "c1", "a2", "b2", "c2"]);
    }

    #[test]
    fn what_comes_during_its_own_turn_waits_for_the_next() {
        let a: Arc<str> = "a".into();
        let mut rounds = RoundRobin::default();
        rounds.push(&a, "a1");
        assert_eq!(rounds.pop(first), Some("a1"));
        rounds.push(&a, "a2");
        assert!(!rounds.has_ready(first), "it is not another's");
        rounds.end_turn(None);
        assert_eq!(turn(&mut rounds), "a2");
        rounds.push(&a, "a3");
        assert_eq!(rounds.drain(), ["a3"]);
        assert!(!rounds.has_ready(first));
    }

    #[test]
    fn who_may_not_come_yet_holds_up_nobody() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut rounds = RoundRobin::default();
        ["held", "held too", "free"].into_iter().for_each(|job| rounds.push(&a, job));
        rounds.push(&b, "held b");
        let free = |jobs: &VecDeque<&str>| jobs.iter().position(|job| *job == "free");
        assert!(rounds.has_ready(free));
        assert_eq!(rounds.pop(free), Some("free"));
        assert!(!rounds.has_ready(free));
        rounds.end_turn(Some("free"));
        assert_eq!(rounds.remove_unless(|job| *job != "held b"), ["held b"]);
        assert_eq!((rounds.pop(free), rounds.pop(free)), (Some("free"), None));
        rounds.end_turn(None);
        assert_eq!([(); 3].map(|()| turn(&mut rounds)), ["held", "held too", "none"]);
    }
}
