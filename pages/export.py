"""Export: write the compressed network, prove that the files compute the same, download them."""

import streamlit as st

from rsdtr.jobs.kinds.export import exported_files
from rsdtr.ui.export import browser_run, files
from rsdtr.ui.jobs import job_view, session_jobs
from rsdtr.ui.plan.chosen_plan import choose
from rsdtr.ui.shared import session
from rsdtr.ui.shared.frame import lead
from rsdtr.ui.shared.markdown import plain
from rsdtr.ui.shared.widgets import choose_data, choose_formats

lead(
    "Every file is written, read back by a fresh process and compared on real images before it "
    "is offered."
)
chosen = choose()
network, plan = chosen.network, chosen.plan
test_set = choose_data(network.spec)
recovery = session.recoveries().get(network.configuration(plan))
if network.synthetic:
    st.info(
        "These files will hold synthetic weights: good for measuring latency elsewhere, for "
        "nothing else. They are proved on images of the data set above all the same.",
        icon=":material/science:",
    )
elif recovery is None:
    st.info(
        "This exports the network as compressed, without recovery: its accuracy may be poor. "
        "Recalibrate or fine-tune it on the Recover page first.",
        icon=":material/healing:",
    )
else:
    st.success(plain(f"This exports the recovered network: {recovery.label}."))

job = files.attached(network, plan)
busy = job is not None and not job.ended
formats = choose_formats(network.spec)
if st.button(
    "Export and prove",
    key="export",
    type="primary",
    icon=":material/verified:",
    disabled=not formats or busy,
    help="Takes up to half a minute per format: each file is checked in its own process. The "
    "page may be closed meanwhile.",
):
    session_jobs.attach(files.start(chosen, test_set, recovery, formats).id)
    st.rerun()
if job is None:
    st.caption("Nothing exported yet for this plan.")
    st.stop()
if busy:
    job_view.watch(job)
    st.stop()
job_view.how_it_ended(job)
exported = exported_files(job)
if exported is None:
    st.stop()
if not files.is_current(exported, recovery):
    st.warning(
        plain(f"These files hold an earlier model ({exported.holds}). Export again to renew."),
        icon=":material/history:",
    )

st.header("Proof")
st.table(
    files.proofs(exported.artefacts),
    hide_index=True,
    alt="Size of each exported file and how closely it agrees with the model",
)
st.caption(
    "A fresh process read each file back and ran it on real images, one by one and in fives. "
    "Logits and classes are compared with those of the model in memory. rsdtr_model.py and "
    "ONNX were run without this program; the manifest has the numbers. "
    "`python -m rsdtr verify ZIP` repeats it all."
)

st.header("On your own device")
browser_run.offer(network, plan, test_set, recovery, exported)

st.header("Download")
files.buttons(exported.folder, plan)
with st.expander("Manifest: the plan and the measurements that the files carry"):
    st.json(files.manifest(exported.folder), expanded=1)
