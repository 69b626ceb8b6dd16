"""The exam and the training samples, written by the teacher."""
