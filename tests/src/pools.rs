//! Real pools of connections: clients of many kinds in pods of their own, and what happens to them meanwhile.
//!
//! Each client keeps its connections open and sends requests of mixed [`Kind`]s over them, by a [`Plan`]. It checks every answer and
//! [says](said) what came of them. Meanwhile agents die, routes come and go, forks end and start again ([`Trouble`]); the [`Timeline`]
//! knows who might serve what at which time, and the servers' journals are compared with it.
//!
//! * [`plan`]: what a client is to do.
//! * [`said`]: what it says.
//! * [`pool`]: the clients: Go, Node, Python, Java, and nginx and haproxy with a [`visitor`] in front.
//! * [`program`], [`proxy`], [`visitor`]: how each is started.
//! * [`stage`]: pods, servers, keys.
//! * [`trouble`]: what happens meanwhile.
//! * [`timeline`]: who might serve whom, when.
//! * [`verdict`]: whether what was said and seen is what may be.

pub mod plan;
pub mod pool;
pub mod program;
pub mod proxy;
pub mod said;
pub mod stage;
pub mod timeline;
pub mod trouble;
pub mod verdict;
pub mod visitor;

pub use plan::{Kind, Plan};
pub use pool::Pool;
pub use stage::Stage;
pub use timeline::Timeline;
pub use trouble::Trouble;
