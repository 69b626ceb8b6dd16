"""report.html, data.html and the other views of a run: from records to sections."""
