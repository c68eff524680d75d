"""Behind the Fine-tune panel: form, run, outcome, versions, and where to look next."""
