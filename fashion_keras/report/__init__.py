"""One HTML page of a folder of results, and what TensorBoard shows: `fashion_keras.report`."""
